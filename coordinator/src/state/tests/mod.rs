mod damage;
mod disk;
mod fixture;
mod rules;
