//! Reading the file's side completely: with ids in place of logins. `run` and `plan` share it.

use std::sync::Arc;

use super::tables::Tables;
use crate::reconcile::Desired;
use crate::reconcile::api::Api;
use crate::reconcile::decide::wanted::Wanted;
use crate::reconcile::error::RunError;

/// Looks up logins, and returns what is wanted.
pub(in crate::reconcile) async fn observe_wanted<A: Api>(
    api: &A,
    tables: &mut Tables,
    desired: &Desired,
) -> Result<Arc<Wanted>, RunError> {
    tables.find_logins(api, desired).await?;
    Ok(tables.wanted(desired))
}
