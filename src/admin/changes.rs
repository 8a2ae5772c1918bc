//! Changes that the page makes for clients with the token: sinks and their dead letters.
//!
//! Each change is a form. A browser's form has to carry the key of its session, so that no page of another origin can
//! send one; a program with the token needs none.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use tracing::info;

use super::change::Change;
use super::control::{Control, Refused};
use super::page;
use super::rights::Rights;
use crate::model::event::{Seq, Since};
use crate::model::route::SinkName;
use crate::store::DeadLetterFilter;

/// Fields of a form.
#[derive(Debug, Default)]
struct Form {
    key: String,
    sink: String,
    /// Id of a dead letter; all of the sink if absent.
    id: Option<i64>,
    seq: Option<u64>,
}

impl Form {
    fn parse(body: &[u8]) -> Result<Self, String> {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            let number = || format!("`{name}` is not a number");
            match &*name {
                "key" => form.key = value.into_owned(),
                "sink" => form.sink = value.into_owned(),
                "id" => form.id = Some(value.parse().map_err(|_| number())?),
                "seq" => form.seq = Some(value.trim().parse().map_err(|_| number())?),
                _ => {}
            }
        }
        if form.sink.is_empty() {
            return Err("`sink` is missing".to_owned());
        }
        Ok(form)
    }
}

/// Routes of the changes.
pub(super) fn routes(control: &Arc<dyn Control>) -> Router {
    Change::ALL.into_iter().fold(Router::new(), |router, change| {
        let control = Arc::clone(control);
        router.route(
            &format!("/change/{}", change.name()),
            post(async move |rights: Extension<Rights>, body: Bytes| {
                handle(change, State(control).0, rights.0, &body).await
            }),
        )
    })
}

async fn handle(change: Change, control: Arc<dyn Control>, rights: Rights, body: &[u8]) -> Response {
    let refuse = |code: StatusCode, why: &str| (code, page::message(why)).into_response();
    if rights == Rights::Read {
        let why = "Changes need `token_file` in `[admin]` and its token. The commands `eventsubd sink` and \
                   `eventsubd dead-letters` do the same in a terminal.";
        return refuse(StatusCode::FORBIDDEN, why);
    }
    let form = match Form::parse(body) {
        Ok(form) => form,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    if !rights.allow(&form.key) {
        return refuse(
            StatusCode::FORBIDDEN,
            "The form is of another session. Load the page again, then repeat it.",
        );
    }
    let sink = SinkName::new(form.sink.as_str());
    match carry_out(change, &*control, &sink, &form).await {
        Ok(()) => {
            info!(sink = %sink, change = change.name(), "changed on the page");
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("done", change.name()).append_pair("sink_done", sink.as_str());
            if matches!(change, Change::Resend | Change::Drop) && form.id.is_some() {
                query.append_pair("letters", sink.as_str());
            }
            Redirect::to(&format!("/?{}#sinks", query.finish())).into_response()
        }
        Err(why) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &why),
    }
}

async fn carry_out(
    change: Change,
    control: &dyn Control,
    sink: &SinkName,
    form: &Form,
) -> Result<(), String> {
    let letters =
        || DeadLetterFilter { sink: Some(sink.clone()), id: form.id, ..DeadLetterFilter::default() };
    let refused = |refused: Refused| refused.error;
    match change {
        Change::Retry => control.retry_sink(sink.clone()).await.map(|_| ()).map_err(refused),
        Change::Skip => control.skip_event(sink.clone()).await.map(|_| ()).map_err(refused),
        Change::Replay => {
            let seq = form.seq.ok_or_else(|| "`seq` is missing".to_owned())?;
            control.replay(sink.clone(), Since::Seq(Seq(seq))).await.map(|_| ()).map_err(refused)
        }
        Change::Resend => control.resend(letters()).await.map(|_| ()).map_err(refused),
        Change::Drop => control.drop_dead_letters(letters()).await.map(|_| ()).map_err(refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_names_a_sink_and_its_numbers_are_numbers() {
        let form = Form::parse(b"key=k&sink=a%26b&id=7&seq=+9&other=x").unwrap();
        assert_eq!(
            (form.key.as_str(), form.sink.as_str(), form.id, form.seq),
            ("k", "a&b", Some(7), Some(9))
        );
        for wrong in [&b""[..], b"id=1", b"sink=a&id=x", b"sink=a&seq=-1", b"sink="] {
            assert!(Form::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
