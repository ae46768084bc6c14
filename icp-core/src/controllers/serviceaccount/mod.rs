//! What every namespace has: the service account `default` and the certificate of the API server
//! (upstream `pkg/controller/serviceaccount`, `pkg/controller/certificates/rootcacertpublisher`).

mod plan;

pub use plan::{RootCaPublisher, ServiceAccounts, plan_default_account, plan_root_ca};
