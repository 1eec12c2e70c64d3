mod damage;
mod disk;
pub(crate) mod fixture;
mod follow;
mod overlap;
mod rules;
mod verify;
mod volumes;
