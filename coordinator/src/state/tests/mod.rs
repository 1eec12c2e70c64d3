mod damage;
mod disk;
pub(crate) mod fixture;
mod follow;
mod rules;
