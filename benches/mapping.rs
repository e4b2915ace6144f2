//! How long mapping takes: a lead of about 1 KB by ten rows, a conversation of 300 messages, and paths alone.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use patchbay::domain::time::Timestamp;
use patchbay::mapping::{Condition, Context, Mapping, evaluate_path};
use serde_json::{Value, json};

const LEAD: &str = r#"
version = 1
blank = "absent"
[[fields]]
to = "firstName"
from = "$.data.lead.name"
apply = ["trim", "first_name"]
required = true
[[fields]]
to = "lastName"
from = "$.data.lead.name"
apply = ["trim", "last_name"]
default = "-"
[[fields]]
to = "email"
from = "$.data.lead.email"
apply = ["email"]
on_error = "skip"
[[fields]]
to = "phone"
from = ["$.data.contact.mobile", "$.data.lead.phone"]
apply = [{ phone = { region = "US" } }]
[[fields]]
to = "stage"
from = "$.data.lead.status"
apply = [{ lookup = { new = "Open", won = "Closed" } }]
default = "Open"
[[fields]]
to = "intent"
from = "$.data.intent"
apply = [{ truncate = 80 }]
[[fields]]
to = "summary"
template = "{{$.data.lead.name}} asked about {{$.data.intent}}"
[[fields]]
to = "createdAt"
from = "$event.time"
apply = ["time"]
[[fields]]
to = "source"
value = "chatbot"
[[fields]]
to = "event.id"
from = "$event.id"
"#;

fn lead() -> Value {
    json!({
        "id": "lead_7f3a9c21", "type": "lead.captured", "time": "2026-05-03T14:22:08Z", "tenant": "acme",
        "source": "bot_acme_plumbing",
        "data": {
            "conversation_id": "conv_5d81e0", "channel": "website", "intent": "request_quote",
            "lead": {"name": " Jane Smith ", "email": "jane@example.com", "phone": "+15555550123", "status": "new"},
            "page": {"url": "https://example.com/services/taps?utm_source=news&utm_medium=mail", "title": "Taps and sinks"},
            "messages": [
                {"role": "user", "text": "Hi, my kitchen tap is leaking. What would a repair cost?", "time": "2026-05-03T14:20:41Z"},
                {"role": "assistant", "text": "I can have someone send you a quote. Who may we contact?", "time": "2026-05-03T14:20:44Z"},
                {"role": "user", "text": "Jane Smith, jane@example.com or +1 555 555 0123.", "time": "2026-05-03T14:22:05Z"}
            ]
        }
    })
}

fn context() -> Context<'static> {
    Context {
        event_id: "lead_7f3a9c21",
        event_type: "lead.captured",
        event_time: "2026-05-03T14:22:08Z",
        source: Some("bot_acme_plumbing"),
        tenant_id: "acme",
        connection_id: "con_1",
        job_id: "job_1",
        attempt: 1,
        now: Timestamp::from_millis(1_777_818_128_000),
    }
}

fn rows(text: &str) -> Mapping {
    Mapping::from_toml("bench.toml", text).expect("the mapping is sound")
}

fn mapping(bench: &mut Criterion) {
    let (event, context) = (lead(), context());
    let ten = rows(LEAD);
    bench.bench_function("lead, ten rows, 1 KB", |run| {
        run.iter(|| ten.apply(black_box(&event), &context).expect("it maps"));
    });
    bench.bench_function("lead, ten rows, preview", |run| {
        run.iter(|| ten.preview(black_box(&event), &context));
    });
    bench.bench_function("the ten rows read", |run| run.iter(|| rows(black_box(LEAD))));

    let mut group = bench.benchmark_group("one row");
    for (name, row) in [
        ("path", "from = '$.data.lead.email'"),
        ("email", "from = '$.data.lead.email'\napply = ['email']"),
        ("phone", "from = '$.data.lead.phone'\napply = ['phone']\non_error = 'skip'"),
        ("phone, dialled at home", "value = '0712 345 678'\napply = [{ phone = 'KE' }]"),
        ("phone, by the library", "value = '+254-712-345-678'\napply = ['phone']"),
        ("time", "from = '$event.time'\napply = ['time']"),
        (
            "time, pattern and zone",
            "from = '$event.time'\napply = [{ time = { format = '%d/%m/%Y %H:%M', zone = 'Africa/Nairobi' } }]",
        ),
        ("template", "template = '{{$.data.lead.name}} asked about {{$.data.intent}}'"),
        ("filter", "from = \"$.data.messages[?@.role == 'user'].text\"\ntake = 'all'"),
        ("descendants", "from = '$..email'"),
        ("transcript of 3", "[fields.transcript]\nmessages = '$.data.messages'"),
    ] {
        let one = rows(&format!("version = 1\n[[fields]]\nto = 'x'\n{row}"));
        group.bench_function(name, |run| {
            run.iter(|| one.apply(black_box(&event), &context).expect("it maps"));
        });
    }
    group.finish();

    let messages: Vec<Value> = (0..300)
        .map(|index| {
            let (hour, minute) = (14 + index / 60, index % 60);
            json!({"role": if index % 2 == 0 { "user" } else { "assistant" }, "time": format!("2026-05-03T{hour}:{minute:02}:41Z"),
                "text": format!("Message {index}: my kitchen tap is leaking, what would a repair cost?")})
        })
        .collect();
    let long = json!({"data": {"messages": messages}});
    for (name, settings) in [
        ("transcript of 300", "line = '{{time}} {{speaker}}: {{text}}'"),
        (
            "transcript of 300, zone, cut",
            "line = '{{time}} {{speaker}}: {{text}}'\nzone = 'Africa/Nairobi'\nmax_chars = 8000\norder = 'oldest_first'",
        ),
    ] {
        let transcript = rows(&format!(
            "version = 1\n[[fields]]\nto = 'x'\n[fields.transcript]\nmessages = '$.data.messages'\n{settings}"
        ));
        bench.bench_function(name, |run| {
            run.iter(|| transcript.apply(black_box(&long), &context).expect("it maps"));
        });
    }

    let condition = Condition::from_json(&json!({"all": [
        {"path": "$.type", "op": "eq", "value": "lead.captured"},
        {"path": "$.data.lead.email", "op": "exists"}
    ]}))
    .expect("the condition is sound");
    bench.bench_function("filter of two tests", |run| {
        run.iter(|| condition.matches(black_box(&event), &context));
    });
    bench.bench_function("a path parsed and followed", |run| {
        run.iter(|| evaluate_path(black_box("$.data.lead.email"), &event).expect("it is a path"));
    });
}

criterion_group!(benches, mapping);
criterion_main!(benches);
