//! Names of images, as Docker reads them (`github.com/distribution/reference`).

use alloc::format;
use alloc::string::String;
use core::fmt;

/// Longest name without tag and digest.
const NAME_MAX: usize = 255;

/// A name of an image with nothing left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The registry.
    pub(crate) domain: String,
    /// The path within it.
    pub(crate) path: String,
    /// Empty if there is a digest and no tag.
    pub(crate) tag: String,
    /// `algorithm:hex`, or empty.
    pub(crate) digest: String,
}

impl Reference {
    /// Reads a name as it stands in a pod spec: `redis` is `docker.io/library/redis:latest`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bad = || String::from("invalid reference format");
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, digest),
            None => (text, ""),
        };
        if text.contains('@') {
            let (algorithm, hex) = digest.split_once(':').ok_or_else(bad)?;
            let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if algorithm.is_empty() || hex.len() < 32 || !hex.chars().all(is_hex) {
                return Err(bad());
            }
        }
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (rest, ""),
        };
        if rest.len() != name.len() {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let good = tag.len() <= 128
                && tag.starts_with(word)
                && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'));
            if !good {
                return Err(bad());
            }
        }
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path.into()),
            Some(_) => ("docker.io", name.into()),
            None => ("docker.io", format!("library/{name}")),
        };
        let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
        let path: String = match domain {
            "docker.io" if !path.contains('/') => format!("library/{path}"),
            _ => path,
        };
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err("invalid reference format: repository name must be lowercase".into());
        }
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good_part = |part: &str| {
            part.starts_with(word)
                && part.ends_with(word)
                && part.chars().all(|c| word(c) || "._-".contains(c))
        };
        let port_is_number = match domain.rsplit_once(':') {
            Some((_, port)) if !domain.ends_with(']') => port.chars().all(|c| c.is_ascii_digit()),
            _ => true,
        };
        let good_domain =
            port_is_number && domain.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c));
        if name.is_empty() || !good_domain || !path.split('/').all(good_part) {
            return Err(bad());
        }
        if name.len() > NAME_MAX {
            return Err(format!("repository name must not be more than {NAME_MAX} characters"));
        }
        let tag = if tag.is_empty() && digest.is_empty() { "latest" } else { tag };
        Ok(Self { domain: domain.into(), path, tag: tag.into(), digest: digest.into() })
    }

    /// The name without tag and digest.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag)?;
        }
        if !self.digest.is_empty() {
            write!(f, "@{}", self.digest)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Reference;
    use alloc::string::ToString;

    #[test]
    fn names_are_completed() {
        let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for (text, full) in [
            ("redis", "docker.io/library/redis:latest"),
            ("redis:6", "docker.io/library/redis:6"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("docker.io/redis", "docker.io/library/redis:latest"),
            ("index.docker.io/library/redis", "docker.io/library/redis:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("localhost/x", "localhost/x:latest"),
            ("host:5000/a/b:v1", "host:5000/a/b:v1"),
            ("gcr.io/google_samples/gb-frontend:v5", "gcr.io/google_samples/gb-frontend:v5"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full);
        }
        let with = Reference::parse(&alloc::format!("redis@{digest}")).unwrap();
        assert_eq!(with.to_string(), alloc::format!("docker.io/library/redis@{digest}"));
    }

    #[test]
    fn bad_names_are_refused() {
        for text in
            ["", "Redis", "a b", "redis:", "redis:a/b:c", "redis@sha256:xyz", "-x", "a//b", "redis:$x", "/x"]
        {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(Reference::parse("Redis").unwrap_err().contains("lowercase"));
    }
}
