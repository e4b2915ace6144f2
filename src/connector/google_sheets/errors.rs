//! What Google's refusals mean, and what a person has to do about each.

use serde_json::Value;

use crate::connector::Verdict;
use crate::connector::answer::quoted;
use crate::domain::job::Outcome;

/// Where an append or a look went wrong.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Whom the sheet is shared with.
    pub email: &'a str,
    /// The tab.
    pub tab: &'a str,
    /// Whether the request would have changed the sheet: what has no answer may then have been done.
    pub writes: bool,
}

/// What follows besides the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing: time may mend it, or nothing can.
    None,
    /// A person must change something in Google or in the sheet: the connection waits for that, and no attempt is spent.
    Person,
    /// One of the rows is refused; the others may be fine.
    Row,
    /// The access token is of no use; a new one may be.
    Token,
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What it came to.
    pub verdict: Verdict,
    /// What is to be done.
    pub remedy: Remedy,
}

impl Refused {
    fn new(outcome: Outcome, remedy: Remedy, reason: String) -> Self {
        Self { verdict: Verdict::plain(outcome, reason), remedy }
    }

    /// A person must do something.
    pub fn person(reason: impl Into<String>) -> Self {
        Self::new(Outcome::AuthFailed, Remedy::Person, reason.into())
    }
}

/// Reads an answer of the Sheets API. `body` is JSON as Google's errors are, or anything else.
pub fn classify(status: u16, body: &[u8], place: &Place<'_>) -> Refused {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &parsed["error"];
    let message = error["message"].as_str().unwrap_or_default();
    let said = quoted(message).map(|words| format!("; Google said {words}")).unwrap_or_default();
    let is = |words: &str| message.to_lowercase().contains(words);
    let Place { email, tab, writes } = place;
    match status {
        400 if is("unable to parse range") => Refused::person(format!(
            "the sheet has no tab \"{tab}\": make one of that name, or name another one in the connection's options"
        )),
        400 | 403 if is("protected") => Refused::person(format!(
            "cells of the tab \"{tab}\" are protected: let {email} edit them (Data, Protect sheets and ranges), or remove \
             the protection{said}"
        )),
        400 if is("cells in the workbook") || is("10000000 cells") => Refused::new(
            Outcome::Rejected,
            Remedy::None,
            "the spreadsheet is full: Google allows 10,000,000 cells; connect a new spreadsheet, or delete rows or tabs, \
             and replay this delivery"
                .to_owned(),
        ),
        400 if is("maximum of 50000 characters") => Refused::new(
            Outcome::Rejected,
            Remedy::Row,
            format!("a cell would hold more than 50,000 characters; shorten the value in the mapping{said}"),
        ),
        400 => Refused::new(Outcome::Rejected, Remedy::Row, format!("Google refused the row for good (400){said}")),
        401 => Refused::new(
            Outcome::AuthFailed,
            Remedy::Token,
            format!(
                "Google refused the access token twice: is the service account {email} still there and enabled? \
                 Then resume the connection{said}"
            ),
        ),
        403 if is("has not been used in project") || is("is disabled") || is("has been disabled") => {
            Refused::person(format!(
                "the Google Sheets API is not enabled in the project of {email}: enable it in the Google Cloud console \
                 (APIs & Services, Library, Google Sheets API), wait a minute, then resume the connection"
            ))
        }
        403 => Refused::person(format!(
            "the sheet is not shared with {email}: open it, press Share, add {email} as Editor, then resume the \
             connection{said}"
        )),
        404 => Refused::person(
            "there is no such spreadsheet: it was deleted, or its address is wrong; check the option \"spreadsheet\"",
        ),
        429 => Refused::new(
            Outcome::Throttled,
            Remedy::None,
            "Google's quota is used up (429): rows wait and no attempt is spent; a higher quota can be asked for in \
             the Google Cloud console"
                .to_owned(),
        ),
        408 | 500..=599 => {
            let html = if parsed.is_null() && !body.is_empty() { ", with a page instead of JSON" } else { "" };
            Refused::new(
                if *writes { Outcome::Ambiguous } else { Outcome::Retry },
                Remedy::None,
                if *writes {
                    format!(
                        "Google failed ({status}{html}): the rows may be there; before the next try they are looked for \
                         by their ids"
                    )
                } else {
                    format!("Google failed ({status}{html}) while the sheet was read; nothing was written")
                },
            )
        }
        _ => Refused::new(Outcome::Rejected, Remedy::Row, format!("Google answered {status}{said}")),
    }
}

/// Reads an answer of the token endpoint: its error's code and words.
pub fn classify_token(code: &str, description: &str, email: &str) -> Refused {
    let said = quoted(description).map(|words| format!("; Google said {words}")).unwrap_or_default();
    let lower = description.to_lowercase();
    let reason = match code {
        "invalid_grant"
            if lower.contains("short-lived")
                || lower.contains("iat")
                || lower.contains("reasonable timeframe") =>
        {
            format!(
                "this machine's clock is wrong, and Google refuses what it signs: set the clock, then resume the connection{said}"
            )
        }
        "invalid_grant" if lower.contains("account not found") => {
            format!(
                "the service account {email} was deleted: give the connection a key of another one, and share the sheet with it{said}"
            )
        }
        "invalid_grant" => format!(
            "the key of {email} is of no use any more (deleted or disabled in the Google Cloud console), or this machine's \
             clock is wrong: make a new key and put it into the connection's credentials{said}"
        ),
        _ => format!("Google gives no access token for {email} ({code}){said}"),
    };
    Refused::person(reason)
}
