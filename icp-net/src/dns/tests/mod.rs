pub(crate) mod fixture;
mod zone;
