//! Launch measurements and vCPUs, for `contrast measure`.

pub(crate) mod input;
pub(crate) mod pod;
pub(crate) mod snp;
pub(crate) mod tdx;
