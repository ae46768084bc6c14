//! What a request of the API asks for (`pkg/kubelet/server/server.go`).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use icp_core::base::{Duration, Time};
use icp_core::server::{Query, percent_decode};

use crate::runtime::{ExecRequest, LogOptions};

/// A path of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// `/healthz`
    Health,
    /// `/pods`
    Pods,
    /// `/metrics`
    Metrics,
    /// `/stats/summary`
    Summary,
    /// `/containerLogs/NAMESPACE/POD/CONTAINER`
    Logs(Target),
    /// `/exec/NAMESPACE/POD/CONTAINER`
    Exec(Target),
    /// `/attach/NAMESPACE/POD/CONTAINER`
    Attach(Target),
    /// `/portForward/NAMESPACE/POD`; the container is empty.
    PortForward(Target),
}

/// Names a container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
}

impl Route {
    /// Parses a path. A uid between pod and container, as the API allows, is not looked at.
    ///
    /// ```
    /// use icp_node::api::Route;
    /// let Some(Route::Exec(target)) = Route::parse("/exec/default/web/main") else { panic!() };
    /// assert_eq!((target.pod.as_str(), target.container.as_str()), ("web", "main"));
    /// assert_eq!(Route::parse("/exec/default/web"), None);
    /// ```
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> =
            path.split('/').filter(|p| !p.is_empty()).map(|p| percent_decode(p, false)).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let target = |namespace: &str, pod: &str, container: &str| Target {
            namespace: namespace.into(),
            pod: pod.into(),
            container: container.into(),
        };
        Some(match *parts.as_slice() {
            ["healthz"] | ["healthz", "ping"] => Self::Health,
            ["pods"] => Self::Pods,
            ["metrics"] => Self::Metrics,
            ["stats", "summary"] => Self::Summary,
            ["containerLogs", ns, pod, container] => Self::Logs(target(ns, pod, container)),
            ["exec", ns, pod, container] | ["exec", ns, pod, _, container] => {
                Self::Exec(target(ns, pod, container))
            }
            ["attach", ns, pod, container] | ["attach", ns, pod, _, container] => {
                Self::Attach(target(ns, pod, container))
            }
            ["portForward", ns, pod] | ["portForward", ns, pod, _] => Self::PortForward(target(ns, pod, "")),
            _ => return None,
        })
    }
}

/// Reads the query of a log request (`PodLogOptions`).
///
/// # Errors
/// Which parameter makes no sense.
pub fn log_options(query: &Query, now: Time) -> Result<LogOptions, String> {
    let number = |name: &str, min: u64| match query.text(name) {
        "" => Ok(None),
        text => match text.parse::<u64>() {
            Ok(n) if n >= min => Ok(Some(n)),
            _ => Err(format!("{name}: Invalid value: {text:?}: must be a whole number of at least {min}")),
        },
    };
    let since_time = match query.text("sinceTime") {
        "" => None,
        text => Some(
            text.parse::<Time>().map_err(|_| format!("sinceTime: Invalid value: {text:?}: not RFC 3339"))?,
        ),
    };
    let since = match (number("sinceSeconds", 1)?, since_time) {
        (Some(_), Some(_)) => {
            return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".into());
        }
        (Some(seconds), None) => Some(now - Duration::from_secs(seconds)),
        (None, time) => time,
    };
    match query.text("stream") {
        "" | "All" => {}
        other => {
            let only = "this node keeps both streams of a container in one log";
            return Err(format!("stream: Unsupported value: {other:?}: {only}"));
        }
    }
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        tail_lines: number("tailLines", 0)?,
        since,
        timestamps: query.flag("timestamps"),
        limit_bytes: number("limitBytes", 1)?,
    })
}

/// Reads the query of an exec or attach (`remotecommand.NewOptions`).
///
/// # Errors
/// What is missing.
pub fn exec_request(query: &Query, needs_command: bool) -> Result<ExecRequest, String> {
    let on = |name: &str| matches!(query.text(name), "1" | "true");
    let tty = on("tty");
    let request = ExecRequest {
        command: query.all("command").map(ToString::to_string).collect(),
        stdin: on("input") || on("stdin"),
        stdout: on("output") || on("stdout"),
        // A terminal has one output.
        stderr: (on("error") || on("stderr")) && !tty,
        tty,
    };
    if needs_command && request.command.is_empty() {
        return Err("you must specify at least 1 command".into());
    }
    if !request.stdin && !request.stdout && !request.stderr {
        return Err("you must specify at least 1 of stdin, stdout, stderr".into());
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_queries() {
        let now = Time::from_secs(1000);
        let parse = |q: &str| log_options(&Query::parse(q), now);
        let options = parse("follow=true&tailLines=3&sinceSeconds=10&timestamps=true&limitBytes=5").unwrap();
        assert!(options.follow && options.timestamps && !options.previous);
        assert_eq!((options.tail_lines, options.limit_bytes), (Some(3), Some(5)));
        assert_eq!(options.since, Some(Time::from_secs(990)));
        assert_eq!(parse("sinceTime=1970-01-01T00:00:05Z").unwrap().since, Some(Time::from_secs(5)));
        assert_eq!(parse("").unwrap(), LogOptions::default());
        for wrong in [
            "tailLines=-1",
            "tailLines=x",
            "sinceSeconds=0",
            "sinceTime=now",
            "limitBytes=0",
            "sinceSeconds=1&sinceTime=1970-01-01T00:00:05Z",
            "stream=Stderr",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn exec_queries() {
        let parse = |q: &str| exec_request(&Query::parse(q), true);
        let request =
            parse("command=sh&command=-c&command=echo+a%26b&input=1&output=1&error=1&tty=1").unwrap();
        assert_eq!(request.command, ["sh", "-c", "echo a&b"]);
        assert!(request.stdin && request.stdout && request.tty && !request.stderr);
        assert!(parse("output=1").is_err());
        assert!(parse("command=ls").is_err());
        assert!(exec_request(&Query::parse("output=1"), false).is_ok());
    }
}
