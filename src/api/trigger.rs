//! `POST /v1/connections/{id}/trigger`: sends now, and answers with what came of it.

use axum::http::StatusCode;
use axum::http::header::HeaderValue;
use serde_json::{Value, json};

use super::call::{Answer, Call, reply};
use super::connections::whose;
use super::events::IDEMPOTENT_REPLAY;
use super::problem::{Code, Problem};
use super::{deliveries, events};
use crate::domain::job::{JobState, Outcome};
use crate::service::trigger::{Trigger, TriggerError, Triggered, is_unanswered};

/// `POST /v1/connections/{id}/trigger`
pub async fn trigger(mut call: Call) -> Answer {
    let (tenant, connection) = whose(&call)?;
    call.gateway.owned_connection(tenant.as_ref(), connection)?;
    let body = call.body().await?;
    let idempotency_key = events::idempotency_key(&call.headers)?;
    let trigger =
        Trigger { tenant: tenant.as_ref(), connection, idempotency_key, headers: &call.headers, body: &body };
    answer(&call.gateway.trigger(trigger).await?)
}

fn answer(triggered: &Triggered) -> Answer {
    let mut delivery = deliveries::show(&triggered.delivery);
    delivery["attempts"] = triggered.attempt.iter().map(|attempt| json!(attempt)).collect();
    if !triggered.succeeded() {
        return Err(problem(triggered, delivery));
    }
    let mut answer = reply(StatusCode::OK, &json!({ "success": true, "delivery": delivery }));
    if triggered.replay {
        answer.headers_mut().insert(IDEMPOTENT_REPLAY, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// The other side's status and words, as a gateway's answer.
fn problem(triggered: &Triggered, delivery: Value) -> Problem {
    let attempt = triggered.attempt.as_ref();
    let status = attempt.and_then(|attempt| attempt.status);
    let outcome = attempt.map(|attempt| attempt.outcome);
    let code = match (triggered.delivery.state, outcome) {
        (JobState::MappingFailed, _) => Code::MappingFailed,
        (_, Some(Outcome::Ambiguous)) => Code::DeliveryUnanswered,
        _ if is_unanswered(&triggered.delivery) => Code::DeliveryUnanswered,
        _ => Code::DeliveryFailed,
    };
    let error = match (code, status) {
        (Code::MappingFailed, _) => "Webhook not sent".to_owned(),
        (_, Some(status)) => format!("Webhook {status}"),
        (Code::DeliveryUnanswered, None) => "Webhook without an answer".to_owned(),
        (_, None) => "Webhook failed".to_owned(),
    };
    let mut problem = Problem::new(code, format!("{error}: {}", triggered.delivery.reason));
    problem.retry_after_secs = triggered.retry_after.map(|after| after.as_secs().max(1));
    if triggered.replay {
        problem.headers.insert(IDEMPOTENT_REPLAY, HeaderValue::from_static("true"));
    }
    problem.members.insert("success".to_owned(), json!(false));
    problem.members.insert("error".to_owned(), json!(error));
    problem.members.insert("delivery".to_owned(), delivery);
    problem
}

impl From<TriggerError> for Problem {
    fn from(error: TriggerError) -> Self {
        let detail = error.to_string();
        match error {
            TriggerError::Publish(error) => error.into(),
            TriggerError::Item(error) => (&error).into(),
            TriggerError::Service(error) => error.into(),
            TriggerError::Held(wait) => {
                Self::new(Code::EndpointHeld, detail).retry_after(wait.as_secs().max(1))
            }
        }
    }
}
