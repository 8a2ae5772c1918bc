//! Reading both sides completely: the file's, with ids in place of logins, and Twitch's list. `run` and `plan` share it.

use super::tables::{Observed, Tables};
use crate::helix::SubscriptionList;
use crate::reconcile::Desired;
use crate::reconcile::api::Api;
use crate::reconcile::decide::place::Places;
use crate::reconcile::decide::wanted::Wanted;
use crate::reconcile::error::RunError;

/// Looks up logins, hands what is wanted to `show`, and reads the whole list of subscriptions. A list that fails or comes in
/// part ends the run: nothing is planned from it.
pub(in crate::reconcile) async fn observe<A: Api>(
    api: &A,
    tables: &mut Tables,
    desired: &Desired,
    places: &Places,
    show: impl FnOnce(&Tables, &Wanted),
) -> Result<Observed, RunError> {
    tables.find_logins(api, desired).await?;
    let wanted = tables.wanted(desired);
    // The list may take minutes to read; whoever asks meanwhile sees what is wanted.
    show(tables, &wanted);
    let list = if places.is_nowhere() {
        SubscriptionList::default()
    } else {
        api.subscriptions(&places.filter())
            .await
            .map_err(|failure| RunError::api("the subscriptions could not be listed", failure))?
    };
    Ok(Observed { wanted, list })
}
