//! Our store, in process and over gRPC, beside a real etcd on the same disk, with the same durability and load:
//!
//! ```text
//! cargo run --release --example store-vs-etcd
//! cargo run --release --example store-vs-etcd -- --quick --only writes,reads
//! cargo run --release --example store-vs-etcd -- --etcd /usr/bin/etcd --dir /var/tmp --json
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::store_vs_etcd::main()
}
