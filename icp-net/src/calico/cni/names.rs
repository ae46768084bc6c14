//! Names of the machine's ends of cables.

use alloc::string::String;
use core::fmt::Write as _;

use sha1::{Digest as _, Sha1};

/// What each such name begins with; policy rules know pods' interfaces by it (`InterfacePrefix`).
pub const HOST_LINK_PREFIX: &str = "cali";
/// How many hexadecimal digits follow: 15 bytes are all that an interface's name may have.
const DIGITS: usize = 11;

/// The name of the machine's end of a pod's cable: `cali` and the start of the key's SHA-1
/// (`libcalico-go/lib/apis/v3`, `VethNameForWorkload`, whose key is `namespace.pod`).
#[must_use]
pub fn host_link_name(key: &str) -> String {
    let mut name = String::from(HOST_LINK_PREFIX);
    for byte in Sha1::digest(key.as_bytes()) {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.truncate(HOST_LINK_PREFIX.len() + DIGITS);
    name
}

/// Whether [`host_link_name`] may have made `name`.
#[must_use]
pub fn is_host_link_name(name: &str) -> bool {
    name.strip_prefix(HOST_LINK_PREFIX).is_some_and(|rest| {
        rest.len() == DIGITS && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}
