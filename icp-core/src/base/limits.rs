//! Bounds that hold everywhere. What exceeds one is refused with an error that names it.

/// Largest request body, in bytes (`kube-apiserver` `MaxRequestBodyBytes`).
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Largest stored object, in bytes (etcd's default `--max-request-bytes`).
pub const OBJECT_BYTES_MAX: usize = 1_572_864;
/// Deepest nesting of a JSON or YAML document.
pub const JSON_DEPTH_MAX: usize = 100;
/// Most operations in one JSON patch (`kube-apiserver` `maxJSONPatchOperations`).
pub const JSON_PATCH_OPS_MAX: usize = 10_000;
/// Most items in one page of a list, whatever `limit` the client asks for.
pub const LIST_PAGE_MAX: usize = 10_000;
/// Largest sum of annotation keys and values of one object, in bytes (`ValidateAnnotations`).
pub const ANNOTATION_BYTES_MAX: usize = 256 * 1024;
