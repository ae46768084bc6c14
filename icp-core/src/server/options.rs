//! The options of requests, checked as upstream checks them (`apimachinery/pkg/apis/meta/v1/validation`,
//! `.../internalversion/validation`).

use alloc::format;
use alloc::vec::Vec;

use super::Query;
use super::context::FieldValidation;
use crate::api::{FieldError, Status, invalid_kind};

/// Longest name of a field manager, in bytes.
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// The options of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WriteOptions {
    pub(super) dry_run: bool,
    pub(super) field_validation: FieldValidation,
}

/// The 422 for options with faults.
pub(super) fn refuse(kind: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(invalid_kind(("meta.k8s.io", kind), "", errors))
}

fn kind_of(verb: &str) -> &'static str {
    match verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        _ => "DeleteOptions",
    }
}

/// Reads the options of a write; `apply` says whether it is a server-side apply. For other verbs they mean nothing.
pub(super) fn write(verb: &str, query: &Query, apply: bool) -> Result<WriteOptions, Status> {
    let mut options = WriteOptions { dry_run: false, field_validation: FieldValidation::Warn };
    if !matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection") {
        return Ok(options);
    }
    let mut errors = Vec::new();
    let dry_run: Vec<&str> = query.all("dryRun").filter(|v| !v.is_empty()).collect();
    options.dry_run = !dry_run.is_empty();
    if dry_run.iter().any(|v| *v != "All") {
        errors.push(FieldError::not_supported("dryRun", dry_run, &["All"]));
    }
    if verb.starts_with("delete") {
        return refuse(kind_of(verb), &errors).map(|()| options);
    }
    if verb == "patch" && !apply && query.get("force").is_some() {
        errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
    }
    let manager = query.text("fieldManager");
    if apply && manager.is_empty() {
        errors.push(FieldError::required("fieldManager", "is required for apply patch"));
    }
    if manager.len() > FIELD_MANAGER_BYTES_MAX {
        errors.push(FieldError::too_long("fieldManager", FIELD_MANAGER_BYTES_MAX));
    }
    if manager.chars().any(char::is_control) {
        errors.push(FieldError::invalid("fieldManager", manager, "should only contain printable characters"));
    }
    options.field_validation = match query.text("fieldValidation") {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            errors.push(FieldError::not_supported("fieldValidation", other, &["Ignore", "Strict", "Warn"]));
            FieldValidation::Warn
        }
    };
    refuse(kind_of(verb), &errors).map(|()| options)
}

/// Checks the options of a list, a watch or a deletion of a collection against each other.
pub(super) fn list(query: &Query, watch: bool) -> Result<(), Status> {
    const MATCH: &str = "resourceVersionMatch";
    let (wanted, version) = (query.text(MATCH), query.text("resourceVersion"));
    let initial = query.get("sendInitialEvents").is_some();
    let mut errors = Vec::new();
    let mut forbid = |field: &str, why: &str| errors.push(FieldError::forbidden(field, why));
    if watch {
        if initial && wanted != "NotOlderThan" {
            forbid(MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !wanted.is_empty() {
            if !initial {
                forbid(
                    MATCH,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if !query.text("continue").is_empty() {
                forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
            if wanted != "NotOlderThan" {
                errors.push(FieldError::not_supported(MATCH, wanted, &["NotOlderThan"]));
            }
        }
        return refuse("ListOptions", &errors);
    }
    if !wanted.is_empty() {
        if version.is_empty() {
            forbid(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !query.text("continue").is_empty() {
            forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
        }
        if wanted == "Exact" && version == "0" {
            forbid(
                MATCH,
                &format!("resourceVersionMatch {:?} is forbidden for resourceVersion \"0\"", "exact"),
            );
        }
    }
    if initial {
        forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    if !matches!(wanted, "" | "Exact" | "NotOlderThan") {
        errors.push(FieldError::not_supported(MATCH, wanted, &["Exact", "NotOlderThan", ""]));
    }
    refuse("ListOptions", &errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_belong_to_their_verbs() {
        let query = Query::parse("dryRun=some&fieldValidation=x&force=1");
        assert!(write("get", &query, false).is_ok());
        let causes = |verb| write(verb, &query, false).unwrap_err().details.unwrap().causes.len();
        assert_eq!((causes("delete"), causes("create"), causes("patch")), (1, 2, 3));
        let all = write("delete", &Query::parse("dryRun=All"), false).unwrap();
        assert!(all.dry_run);
    }
}
