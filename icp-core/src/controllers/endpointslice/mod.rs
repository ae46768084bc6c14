//! EndpointSlices and Endpoints: which pods stand behind a Service (upstream
//! `staging/src/k8s.io/endpointslice`, `pkg/controller/endpoint`).

mod backends;
mod endpoints;
mod plan;

pub use endpoints::{Endpoints, plan as plan_endpoints};
pub use plan::{EndpointSlices, Observed, plan};
