//! Files of bbolt, the embedded database of etcd: written from sorted records, and read, without holding one whole.
//!
//! The format is that of `etcd-io/bbolt`: two meta pages, a list of free pages, and a B+ tree of buckets, each a B+
//! tree of its own. What is written is packed, has no free page and passes bbolt's own check.
//!
//! ```
//! use icp_store::etcd::bolt::{Bucket, File, Reader};
//! let records = vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), vec![7; 10_000])];
//! let mut file = File::new(vec![Bucket { name: b"key", records: Box::new(records.clone()) }]);
//! let (mut bytes, mut seen) = (Vec::new(), Vec::new());
//! while file.next(&mut bytes) {}
//! assert_eq!(bytes.len() as u64, file.bytes());
//! Reader::open(&bytes[..])?.for_each(b"key", |k, v| Ok(seen.push((k.to_vec(), v.to_vec()))))?;
//! assert_eq!(seen, records);
//! # Ok::<(), icp_store::etcd::bolt::BoltError>(())
//! ```

mod format;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use read::{BoltError, Reader, Source};
pub use write::{Bucket, File, Records};
