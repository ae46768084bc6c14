pub(crate) mod fixture;
mod oracle;
mod zone;
