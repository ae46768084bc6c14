//! Get and list.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::body::Direct;
use super::context::Context;
use super::negotiate::Accept;
use super::{Body, codec, failure};
use crate::api::fields::FieldSelector;
use crate::api::labels::Selector;
use crate::api::{Object, Status, printer};
use crate::base::limits::LIST_PAGE_MAX;
use crate::client::Reply;
use crate::storage::{KeyRange, KeyValue, RangeRequest, Revision, StorageError};

/// Which objects of a collection a request means.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) labels: Selector,
    pub(super) fields: FieldSelector,
}

impl Filter {
    pub(super) fn is_all(&self) -> bool {
        self.labels.requirements.is_empty() && self.fields.terms.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.labels.matches_object(object) && self.fields.matches(object)
    }
}

/// A continue token (`apiserver/pkg/storage/continue.go`). `rv` -1 means: go on at whatever is newest.
#[derive(Serialize, Deserialize)]
struct Continue {
    v: String,
    rv: Revision,
    /// The first key of the rest, without the prefix of the collection.
    start: String,
}

impl Continue {
    fn encode(rv: Revision, start: String) -> String {
        let token = Self { v: "meta.k8s.io/v1".into(), rv, start };
        B64.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let bad = |e: String| {
            failure::bad_request(alloc::format!("invalid continue token: continue key is not valid: {e}"))
        };
        let bytes = B64.decode(text.trim_end_matches('=')).map_err(|e| bad(e.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(bad(alloc::format!("server does not recognize this encoded version {:?}", token.v)));
        }
        if token.rv == 0 {
            return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()));
        }
        if token.start.is_empty() || token.start.contains("..") {
            return Err(bad(
                "encoded start key empty or out of its collection (version meta.k8s.io/v1)".into()
            ));
        }
        Ok(token)
    }
}

/// One page of a collection.
pub(super) struct Page {
    pub(super) revision: Revision,
    pub(super) items: Vec<(KeyValue, Option<Value>)>,
    pub(super) next: Option<String>,
    pub(super) remaining: Option<i64>,
}

impl Context {
    pub(super) fn filter(&self) -> Result<Filter, Status> {
        let labels = Selector::parse(self.query.text("labelSelector"))
            .map_err(|e| failure::bad_request(e.to_string()))?;
        let mut fields = FieldSelector::parse(&self.info, self.query.text("fieldSelector"))?;
        // A named watch or list is a field selector too.
        if !self.request.name.is_empty() && self.request.verb != "get" {
            fields.terms.push(crate::api::fields::FieldTerm {
                field: "metadata.name".into(),
                value: self.request.name.clone(),
                negated: false,
            });
        }
        Ok(Filter { labels, fields })
    }

    /// Whether a stored object is meant, and its value if it had to be parsed.
    pub(super) fn select(&self, filter: &Filter, kv: &KeyValue) -> Result<Option<Option<Value>>, Status> {
        if filter.is_all() {
            return Ok(Some(None));
        }
        let mut object = codec::decode(&kv.value, kv.mod_revision)?;
        super::version::from_storage(&self.info, &mut object);
        Ok(filter.matches(&object).then_some(Some(object)))
    }

    /// The `resourceVersion` of a read: `None` if it is not given.
    pub(super) fn resource_version(&self) -> Result<Option<Revision>, Status> {
        match self.query.text("resourceVersion") {
            "" => Ok(None),
            text => {
                text.parse::<u64>().ok().and_then(|v| Revision::try_from(v).ok()).map(Some).ok_or_else(|| {
                    let why = if text.bytes().all(|b| b.is_ascii_digit()) { "value out of range" } else { "invalid syntax" };
                    failure::bad_request(alloc::format!(
                        "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {why}"
                    ))
                })
            }
        }
    }

    pub(super) async fn get(&self) -> Result<Response<Body>, Status> {
        let key = self.key();
        let response =
            self.server.storage().range(RangeRequest::new(KeyRange::key(key.into_bytes()))).await?;
        if let Some(asked) = self.resource_version()?.filter(|asked| *asked > response.revision) {
            return Err(failure::too_large_resource_version(asked, response.revision));
        }
        match response.kvs.first() {
            Some(kv) => self.respond_stored(200, &kv.value, kv.mod_revision),
            None => Err(failure::not_found(&self.info, &self.request.name)),
        }
    }

    /// Reads one page; all of the collection if no limit is given.
    pub(super) async fn page(&self, filter: &Filter) -> Result<Page, Status> {
        let prefix = self.info.key_prefix(Some(self.namespace()));
        let limit = usize::try_from(self.query.number("limit")?.unwrap_or(0)).unwrap_or(0).min(LIST_PAGE_MAX);
        let mut range = KeyRange::prefix(prefix.clone().into_bytes());
        if let Some(name) = filter.fields.name() {
            let only = self.namespace();
            if !self.info.namespaced || !only.is_empty() {
                range = KeyRange::key(self.info.key(only, name).into_bytes());
            }
        }
        let version = self.resource_version()?;
        let mut revision = 0;
        let exact = self.query.text("resourceVersionMatch") == "Exact";
        let token = self.query.text("continue");
        if !token.is_empty() {
            if version.is_some_and(|v| v != 0) {
                return Err(failure::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = Continue::decode(token)?;
            range.start = alloc::format!("{prefix}{}", token.start).into_bytes().into();
            revision = token.rv.max(0);
        } else if exact || (limit > 0 && self.query.text("resourceVersionMatch").is_empty()) {
            // A paged list of a given version without a match is exact (and "0" is any).
            revision = version.unwrap_or(0);
        }
        let mut page = Page { revision: 0, items: Vec::new(), next: None, remaining: None };
        let mut chunk = if limit == 0 { LIST_PAGE_MAX } else { limit };
        loop {
            let most = i64::try_from(chunk).unwrap_or(i64::MAX);
            let request = RangeRequest::new(range.clone()).limit(most).at(revision);
            let response = match self.server.storage().range(request).await {
                Ok(response) => response,
                Err(StorageError::Compacted { .. }) if !token.is_empty() => {
                    return Err(self.expired_token(&range, &prefix));
                }
                Err(e) => return Err(e.into()),
            };
            if revision == 0 {
                revision = response.revision;
                if let Some(asked) = version.filter(|asked| *asked > response.revision) {
                    return Err(failure::too_large_resource_version(asked, response.revision));
                }
            }
            page.revision = revision;
            let in_chunk = response.kvs.len();
            let (mut read, mut last) = (0_usize, None);
            for kv in response.kvs {
                (read, last) = (read + 1, Some(kv.key.clone()));
                if let Some(value) = self.select(filter, &kv)? {
                    page.items.push((kv, value));
                }
                if limit > 0 && page.items.len() >= limit {
                    break;
                }
            }
            let more = response.more || read < in_chunk;
            let Some(last) = last.filter(|_| more) else { return Ok(page) };
            let mut next = last.to_vec();
            next.push(0);
            range.start = next.into();
            if limit > 0 && page.items.len() >= limit {
                page.next = Some(Continue::encode(revision, rest_of(&range.start, &prefix)));
                let read = i64::try_from(read).unwrap_or(i64::MAX);
                page.remaining = filter.is_all().then_some(response.count - read);
                return Ok(page);
            }
            // A selector that few objects match costs few reads (`etcd3.store.GetList` doubles, too).
            chunk = chunk.saturating_mul(2).min(LIST_PAGE_MAX);
        }
    }

    /// The 410 for a token whose revision is gone, with a token that goes on at the newest revision.
    fn expired_token(&self, range: &KeyRange, prefix: &str) -> Status {
        let mut value = serde_json::to_value(failure::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        ))
        .unwrap_or_default();
        if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.insert("continue".into(), Continue::encode(-1, rest_of(&range.start, prefix)).into());
        }
        serde_json::from_value(value).unwrap_or_default()
    }

    pub(super) async fn list(&self) -> Result<Response<Body>, Status> {
        let filter = self.filter()?;
        let page = self.page(&filter).await?;
        let mut meta = json!({ "resourceVersion": page.revision.to_string() });
        if let (Some(next), Some(map)) = (&page.next, meta.as_object_mut()) {
            map.insert("continue".into(), next.as_str().into());
            if let Some(remaining) = page.remaining {
                map.insert("remainingItemCount".into(), remaining.into());
            }
        }
        if self.direct
            && let Some(items) = self.list_objects(&page)
        {
            let reply = Reply::List {
                items,
                resource_version: page.revision.to_string(),
                continue_token: page.next.filter(|t| !t.is_empty()),
            };
            return Ok(Response::new(Body::direct(Direct::Reply(reply))));
        }
        if matches!(self.accept, Accept::Json | Accept::Yaml) {
            return Ok(self.respond_bytes(200, self.list_bytes(&meta, page)?));
        }
        let objects = page.items.into_iter().map(|(kv, value)| self.item(&kv, value));
        let objects = objects.collect::<Result<Vec<_>, _>>()?;
        if self.accept == Accept::Table {
            let refs: Vec<&Value> = objects.iter().collect();
            let table = printer::table(&self.info, &refs, meta, self.now, self.include_object(), true);
            return Ok(self.respond_value(200, &table));
        }
        let items: Vec<Value> = objects.iter().map(printer::partial_metadata).collect();
        let list = json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items,
        });
        Ok(self.respond_value(200, &list))
    }

    /// The objects of a page as a client reads them; `None` if one cannot be read.
    fn list_objects(&self, page: &Page) -> Option<Vec<Arc<Object>>> {
        let items = page.items.iter().map(|(kv, parsed)| {
            let object = if self.stored_form() {
                codec::object(&kv.value, kv.mod_revision, true)?
            } else {
                lean(Object::from_value(self.item(kv, parsed.clone()).ok()?).ok()?)
            };
            Some(Arc::new(object))
        });
        items.collect()
    }

    /// A stored object in the request's version.
    pub(super) fn item(&self, kv: &KeyValue, parsed: Option<Value>) -> Result<Value, Status> {
        match parsed {
            Some(value) => Ok(value),
            None => {
                let mut object = codec::decode(&kv.value, kv.mod_revision)?;
                super::version::from_storage(&self.info, &mut object);
                Ok(object)
            }
        }
    }

    /// A list of objects as they are stored, joined without parsing them.
    fn list_bytes(&self, meta: &Value, page: Page) -> Result<Bytes, Status> {
        let size: usize = page.items.iter().map(|(kv, _)| kv.value.len() + 48).sum();
        let mut out = BytesMut::with_capacity(size + 256);
        let head = alloc::format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{meta},\"items\":[",
            Value::from(self.info.list_kind.as_str()),
            Value::from(self.info.api_version()),
        );
        out.put_slice(head.as_bytes());
        for (i, (kv, value)) in page.items.into_iter().enumerate() {
            if i > 0 {
                out.put_u8(b',');
            }
            if self.stored_form() {
                out.put_slice(&codec::with_revision(&kv.value, kv.mod_revision));
            } else {
                out.put_slice(&serde_json::to_vec(&self.item(&kv, value)?).unwrap_or_default());
            }
        }
        out.put_slice(b"]}");
        Ok(out.freeze())
    }
}

/// An object without what lists and watches leave out.
pub(super) fn lean(mut object: Object) -> Object {
    object.metadata.rest.remove("managedFields");
    object
}

fn rest_of(key: &[u8], prefix: &str) -> String {
    let rest = key.strip_prefix(prefix.as_bytes()).unwrap_or(key);
    String::from_utf8_lossy(rest).into_owned()
}
