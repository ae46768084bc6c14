mod cache;
mod machine;
