//! Users and groups: from names and numbers to ids that exist on the node.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::IdRange;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Groups that `/etc/group` of the image puts the user in.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_lines(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?;
        Some(Passwd { name, uid, gid, home })
    })
}

fn group_lines(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// Resolves the user of an image config (`user`, `uid`, `user:group`, `uid:gid`) and what a spec says instead, against
/// the image's `/etc/passwd` and `/etc/group` (`containerd/oci/spec_opts.go`, `WithUser`).
///
/// # Errors
/// Names a user or group that the image does not know.
pub(crate) fn resolve_user(
    image_user: &str,
    run_as_user: Option<u32>,
    run_as_group: Option<u32>,
    passwd: &str,
    group: &str,
) -> Result<User, String> {
    let (user_part, group_part) = image_user.split_once(':').unwrap_or((image_user, ""));
    let mut user = User { home: "/".into(), ..User::default() };
    let by_uid = |uid: u32| passwd_lines(passwd).find(|p| p.uid == uid);
    let entry = match run_as_user {
        Some(uid) => {
            user.uid = uid;
            by_uid(uid)
        }
        None if user_part.is_empty() => by_uid(0),
        None => match user_part.parse::<u32>() {
            Ok(uid) => {
                user.uid = uid;
                by_uid(uid)
            }
            Err(_) => {
                let found = passwd_lines(passwd).find(|p| p.name == user_part);
                Some(found.ok_or_else(|| {
                    format!("the image runs as user {user_part:?}, which its /etc/passwd does not know")
                })?)
            }
        },
    };
    if let Some(entry) = entry {
        user.uid = entry.uid;
        user.gid = entry.gid;
        user.home = entry.home.into();
        user.groups = group_lines(group)
            .filter(|(_, gid, members)| *gid != entry.gid && members.split(',').any(|m| m == entry.name))
            .map(|(_, gid, _)| gid)
            .collect();
    }
    match (run_as_group, run_as_user, group_part) {
        (Some(gid), ..) => user.gid = gid,
        // The image's group goes with the image's user.
        (None, Some(_), _) | (None, None, "") => {}
        (None, None, name) => {
            user.gid = match name.parse() {
                Ok(gid) => gid,
                Err(_) => {
                    group_lines(group).find(|(n, ..)| *n == name).map(|(_, gid, _)| gid).ok_or_else(|| {
                        format!("the image runs as group {name:?}, which its /etc/group does not know")
                    })?
                }
            };
        }
    }
    Ok(user)
}

/// What to tell of an id that does not exist in the node's user namespace; `None` if it does.
pub(crate) fn unmapped(field: &str, id: u32, ranges: &[IdRange]) -> Option<String> {
    let inside = |r: &IdRange| id >= r.first && id - r.first < r.count;
    if ranges.iter().any(inside) {
        return None;
    }
    let list: Vec<String> = ranges
        .iter()
        .map(|r| match r.count {
            1 => format!("{}", r.first),
            n => format!("{}-{}", r.first, r.first.saturating_add(n - 1)),
        })
        .collect();
    Some(format!(
        "{field}: id {id} does not exist on this node: its user namespace has only {} (run the node as root for others)",
        list.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nredis:x:999:1000::/home/redis:/bin/sh\nbroken line\n";
    const GROUP: &str = "root:x:0:\nredis:x:1000:\ndisk:x:6:redis,other\nwww:x:33:\n";

    #[test]
    fn names_numbers_and_specs() {
        let case = |user: &str, run: Option<u32>, group: Option<u32>| {
            resolve_user(user, run, group, PASSWD, GROUP).map(|u| (u.uid, u.gid, u.groups, u.home))
        };
        assert_eq!(case("", None, None), Ok((0, 0, Vec::new(), "/root".into())));
        assert_eq!(case("redis", None, None), Ok((999, 1000, Vec::from([6]), "/home/redis".into())));
        assert_eq!(case("999", None, None), Ok((999, 1000, Vec::from([6]), "/home/redis".into())));
        assert_eq!(case("5:33", None, None), Ok((5, 33, Vec::new(), "/".into())));
        assert_eq!(case("redis:www", None, None), Ok((999, 33, Vec::from([6]), "/home/redis".into())));
        assert_eq!(case("redis:www", Some(0), None), Ok((0, 0, Vec::new(), "/root".into())));
        assert_eq!(case("", Some(7), Some(8)), Ok((7, 8, Vec::new(), "/".into())));
        assert!(case("nobody", None, None).unwrap_err().contains("\"nobody\""));
        assert!(case("0:nobody", None, None).unwrap_err().contains("\"nobody\""));
    }

    #[test]
    fn ids_outside_of_the_map_are_named() {
        let single = [IdRange { first: 0, count: 1 }];
        assert_eq!(unmapped("runAsUser", 0, &single), None);
        let text = unmapped("runAsUser", 1000, &single).unwrap();
        assert!(text.contains("runAsUser: id 1000") && text.contains("only 0 "), "{text}");
        let all = [IdRange { first: 0, count: u32::MAX }];
        assert_eq!(unmapped("runAsUser", 65534, &all), None);
        assert!(unmapped("x", 5, &[IdRange { first: 10, count: 5 }]).unwrap().contains("10-14"));
    }
}
