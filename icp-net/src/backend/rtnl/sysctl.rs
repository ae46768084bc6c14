//! Kernel parameters of the calling thread's network namespace (`/proc/sys`).
//!
//! ```
//! use icp_net::backend::rtnl::sysctl;
//! assert_eq!(sysctl::path("net.ipv4.conf.eth0/1.forwarding").unwrap().to_str(), Some("/proc/sys/net/ipv4/conf/eth0.1/forwarding"));
//! assert!(sysctl::path("net.../../etc/passwd").is_err());
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::string::String;

/// The file of a parameter. Dots part the name; a slash in `name` stands for a dot of an interface's name, as in
/// `sysctl(8)`.
///
/// # Errors
/// `InvalidInput` for a name with an empty part or `..`.
pub fn path(name: &str) -> io::Result<PathBuf> {
    let mut path = PathBuf::from("/proc/sys");
    for part in name.split('.') {
        let part: String = part.chars().map(|c| if c == '/' { '.' } else { c }).collect();
        if part.is_empty() || part == "." || part == ".." {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a sysctl name"));
        }
        path.push(part);
    }
    Ok(path)
}

/// Sets a parameter, such as `net.ipv4.ip_forward` to `1`, unless it has that value already.
///
/// A machine that mounts `/proc/sys` read-only can so still be configured by whoever prepared it.
///
/// # Errors
/// Of reading and writing the file.
pub fn set(name: &str, value: &str) -> io::Result<()> {
    let file = path(name)?;
    if read(&file)? == value { Ok(()) } else { std::fs::write(file, value) }
}

/// The value of a parameter.
///
/// # Errors
/// Of reading the file.
pub fn get(name: &str) -> io::Result<String> {
    read(&path(name)?)
}

fn read(file: &Path) -> io::Result<String> {
    Ok(String::from(std::fs::read_to_string(file)?.trim()))
}
