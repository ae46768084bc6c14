//! Requests to the cluster's own API, as the example and its checks make them.

use std::sync::Arc;
use std::time::Duration;

use icp_core::api::{Gvr, Object, reason, table};
use icp_core::client::{
    ApiError, ApiRequest, Client, DeleteOptions, ListOptions, Operation, PatchKind, Reply,
};
use serde_json::Value;

/// A client with the calls that programs want.
#[derive(Clone)]
pub struct Api(pub Arc<dyn Client>);

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

/// Why something about the cluster failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiFailure {
    /// The API server said no, or could not be reached.
    #[error("{what}: {source}")]
    Api {
        /// What was asked.
        what: String,
        /// The answer.
        source: Box<ApiError>,
    },
    /// The manifest is not understood.
    #[error("{place}: {detail}")]
    Manifest {
        /// Which document, or which field.
        place: String,
        /// What is wrong.
        detail: String,
    },
    /// The cluster is not as it should be.
    #[error("{what}: {detail}")]
    Unexpected {
        /// What was looked at.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It took too long.
    #[error("{what}: not within {} s; last seen: {last}", limit.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// The last state.
        last: String,
    },
}

fn failed(what: String) -> impl FnOnce(ApiError) -> ApiFailure {
    move |source| ApiFailure::Api { what, source: Box::new(source) }
}

impl Api {
    async fn object(&self, request: ApiRequest, what: String) -> Result<Arc<Object>, ApiFailure> {
        match self.0.request(request).await.map_err(failed(what.clone()))? {
            Reply::Object(object) => Ok(object),
            other => Err(failed(what)(ApiError::Decode(format!("not an object: {other:?}")))),
        }
    }

    /// Reads one object; `None` if there is none.
    ///
    /// # Errors
    /// If the API server cannot be reached or says no.
    pub async fn get(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, ApiFailure> {
        let request = ApiRequest::object(gvr, namespace, name, Operation::Get);
        match self.object(request, format!("get {} {name}", gvr.resource)).await {
            Ok(object) => Ok(Some(object)),
            Err(ApiFailure::Api { source, .. }) if source.is(reason::NOT_FOUND) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads a collection whole; an empty namespace means all.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn list(
        &self,
        gvr: &Gvr,
        namespace: &str,
        labels: &str,
    ) -> Result<Vec<Arc<Object>>, ApiFailure> {
        let options = ListOptions { label_selector: labels.into(), ..ListOptions::default() };
        let what = format!("list {}", gvr.resource);
        let request = ApiRequest::collection(gvr, namespace, Operation::List(options));
        match self.0.request(request).await.map_err(failed(what.clone()))? {
            Reply::List { items, .. } => Ok(items),
            other => Err(failed(what)(ApiError::Decode(format!("not a list: {other:?}")))),
        }
    }

    /// Creates an object, or changes the one of that name to what is given (fields that are not given stay).
    ///
    /// # Errors
    /// [`ApiFailure::Manifest`] if its kind is not served; else as [`Api::get`].
    pub async fn apply(&self, manifest: Value, default_namespace: &str) -> Result<Arc<Object>, ApiFailure> {
        let malformed = |place: &str, detail: String| ApiFailure::Manifest { place: place.into(), detail };
        let mut object: Object =
            serde_json::from_value(manifest.clone()).map_err(|e| malformed("object", e.to_string()))?;
        let gvk = object.gvk();
        let info = table::find_kind(&gvk.group, &gvk.version, &gvk.kind).ok_or_else(|| {
            malformed("kind", format!("no resource serves {} {}", gvk.api_version(), gvk.kind))
        })?;
        if info.namespaced && object.metadata.namespace.is_empty() {
            object.metadata.namespace = default_namespace.into();
        }
        let (namespace, name) = (object.metadata.namespace.clone(), object.metadata.name.clone());
        let what = format!("create {} {name}", info.gvr.resource);
        let create = ApiRequest::collection(&info.gvr, &namespace, Operation::Create(Arc::new(object)));
        match self.object(create, what).await {
            Err(ApiFailure::Api { source, .. }) if source.is(reason::ALREADY_EXISTS) => {
                self.patch(&info.gvr, &namespace, &name, PatchKind::Strategic, manifest).await
            }
            done => done,
        }
    }

    /// Changes an object.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn patch(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        kind: PatchKind,
        body: Value,
    ) -> Result<Arc<Object>, ApiFailure> {
        let op = Operation::Patch { kind, body, field_manager: None, force: false };
        self.object(ApiRequest::object(gvr, namespace, name, op), format!("patch {} {name}", gvr.resource))
            .await
    }

    async fn delete_with(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        options: DeleteOptions,
    ) -> Result<(), ApiFailure> {
        let request = ApiRequest::object(gvr, namespace, name, Operation::Delete(options));
        match self.0.request(request).await {
            Ok(_) => Ok(()),
            Err(e) if e.is(reason::NOT_FOUND) => Ok(()),
            Err(e) => Err(failed(format!("delete {} {name}", gvr.resource))(e)),
        }
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn delete(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<(), ApiFailure> {
        self.delete_with(gvr, namespace, name, DeleteOptions::default()).await
    }

    /// Deletes an object without waiting for anybody.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn force_delete(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<(), ApiFailure> {
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        self.delete_with(gvr, namespace, name, options).await
    }

    /// Asks `look` every 50 ms until it gives a value; a failed request counts as "not yet".
    ///
    /// # Errors
    /// [`ApiFailure::Timeout`] after `limit`, with what `look` last said.
    pub async fn wait<T, F>(&self, what: &str, limit: Duration, mut look: F) -> Result<T, ApiFailure>
    where
        F: AsyncFnMut(&Self) -> Result<Result<T, String>, ApiFailure>,
    {
        let mut last = String::new();
        let polling = async {
            loop {
                match tokio::time::timeout(Duration::from_secs(5), look(self)).await {
                    Ok(Ok(Ok(value))) => return value,
                    Ok(Ok(Err(state))) => last = state,
                    Ok(Err(e)) => last = e.to_string(),
                    Err(_) => last = "the API server did not answer within 5 s".into(),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let done = tokio::time::timeout(limit, polling).await;
        done.map_err(|_| ApiFailure::Timeout { what: what.into(), limit, last })
    }
}

/// The documents of a YAML file as JSON values; empty ones are left out.
///
/// # Errors
/// [`ApiFailure::Manifest`] that names the document.
pub fn documents(text: &str) -> Result<Vec<Value>, ApiFailure> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|e| ApiFailure::Manifest { place: "manifest".into(), detail: e.to_string() })?;
    let mut out = Vec::new();
    for (i, document) in all.into_iter().enumerate() {
        match document {
            Value::Null => {}
            // `kind: List`, as kubectl prints.
            Value::Object(mut map) if map.get("kind").and_then(Value::as_str) == Some("List") => {
                if let Some(Value::Array(items)) = map.remove("items") {
                    out.extend(items);
                }
            }
            Value::Object(map) => out.push(Value::Object(map)),
            _ => {
                let place = format!("document {}", i + 1);
                return Err(ApiFailure::Manifest { place, detail: "is not an object".into() });
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_and_lists_opened() {
        let text = "# c\n---\nkind: A\n---\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n";
        let kinds: Vec<String> =
            documents(text).unwrap().iter().map(|d| d["kind"].as_str().unwrap().to_string()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert!(documents("kind: A\n---\n- 1\n").is_err());
        assert!(documents("kind: [").is_err());
    }
}
