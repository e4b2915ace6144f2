use super::*;
use crate::domain::job::JobState;
use crate::domain::settle::Next;
use crate::store::LaneCounts;

#[test]
fn everything_counted_is_exposed() {
    let metrics = Metrics::default();
    metrics.events(Taken::Accepted, 3);
    metrics.received(Received::Unverified);
    metrics.attempt("webhook", Outcome::Delivered, Duration::from_millis(20));
    metrics.request("POST", "/v1/events", 202, Duration::from_millis(1));
    metrics.flow.follows(&Next::Done(JobState::Delivered));
    metrics.flow.follows(&Next::Due(Timestamp::default()));
    metrics.flow.throttled();
    metrics.flow.shed(Shed::Bytes);
    metrics.flow.spans(Told::Exported, 4);
    let in_flight = metrics.flow.request();
    let under_way = metrics.under_way();
    drop(metrics.under_way());
    let stats = Stats {
        open: 7,
        leased: 2,
        oldest: Some(Timestamp::from_millis(1_000)),
        lanes: LaneCounts { ready: 1, waiting: 2, full: 3, paused: 4 },
    };
    let text = metrics.expose(Some(&stats), true, Timestamp::from_millis(6_000));
    for line in [
        "patchbay_events_total{result=\"accepted\"} 3",
        "patchbay_received_total{result=\"unverified\"} 1",
        "patchbay_attempts_total{connector=\"webhook\",outcome=\"delivered\"} 1",
        "patchbay_attempt_duration_seconds_count{outcome=\"delivered\"} 1",
        "patchbay_attempts_under_way 1",
        "patchbay_http_requests_total{method=\"POST\",route=\"/v1/events\",status=\"2xx\"} 1",
        "patchbay_jobs_ended_total{state=\"delivered\"} 1",
        "patchbay_retries_total 1",
        "patchbay_throttled_total 1",
        "patchbay_shed_total{reason=\"bytes\"} 1",
        "patchbay_spans_total{result=\"exported\"} 4",
        "patchbay_http_requests_in_flight 1",
        "patchbay_queue_depth 7",
        "patchbay_jobs_leased 2",
        "patchbay_oldest_job_age_seconds 5",
        "patchbay_lanes{state=\"paused\"} 4",
        "patchbay_store_up 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    drop((under_way, in_flight));
}

#[test]
fn what_the_store_does_not_tell_is_not_told_from_before() {
    let metrics = Metrics::default();
    let open = Stats { open: 7, ..Stats::default() };
    assert!(metrics.expose(Some(&open), true, Timestamp::default()).contains("patchbay_queue_depth 7\n"));
    let text = metrics.expose(None, false, Timestamp::default());
    assert!(text.contains("patchbay_store_up 0\n"), "{text}");
    for name in ["queue_depth", "jobs_leased", "oldest_job_age_seconds", "lanes"] {
        assert!(!text.contains(&format!("patchbay_{name}")), "{name} in\n{text}");
    }
    assert_eq!(text.matches("# EOF").count(), 1, "{text}");
}

/// Each sample's name and the names of its labels.
fn samples(text: &str) -> Vec<(&str, Vec<&str>)> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once([' ', '{']).map(|(name, rest)| (name, line, rest)))
        .map(|(name, line, rest)| {
            let labels = if line[name.len()..].starts_with('{') { rest.split_once('}') } else { None };
            let labels = labels.map_or("", |(labels, _)| labels);
            (name, labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect())
        })
        .collect()
}

/// The queries of a dashboard or of rules: every text under a key `expr`.
fn queries(value: &serde_json::Value, found: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        match value.as_str().filter(|_| key == "expr") {
            Some(query) => found.push(query.to_owned()),
            None => queries(value, found),
        }
    }
    value.as_array().into_iter().flatten().for_each(|value| queries(value, found));
}

#[test]
fn dashboards_and_alerts_ask_for_what_there_is() {
    let metrics = Metrics::default();
    for outcome in Outcome::ALL {
        metrics.attempt("webhook", outcome, Duration::from_millis(20));
    }
    metrics.events(Taken::Accepted, 3);
    metrics.reload(0);
    metrics.flow.ended(JobState::Dead);
    metrics.flow.follows(&Next::Due(Timestamp::default()));
    metrics.flow.throttled();
    metrics.flow.shed(Shed::Requests);
    metrics.flow.spans(Told::Dropped, 1);
    metrics.request("POST", "/v1/events", 202, Duration::from_millis(1));
    let text = metrics.expose(Some(&Stats::default()), true, Timestamp::from_millis(6_000));
    let samples = samples(&text);
    let dashboard = include_str!("../../../docs/operations/grafana.json");
    let mut all = Vec::new();
    queries(&serde_json::from_str(dashboard).unwrap(), &mut all);
    let rules = include_str!("../../../docs/operations/alerts.yml");
    let rules = yaml_rust2::YamlLoader::load_from_str(rules).unwrap();
    let rules: Vec<_> = rules[0]["groups"][0]["rules"].clone().into_iter().collect();
    all.extend(rules.iter().map(|rule| rule["expr"].as_str().unwrap().to_owned()));
    assert!(all.len() >= 20, "{all:?}");

    let name = regex::Regex::new(r"(patchbay_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let by = regex::Regex::new(r"by \(([^)]*)\)").unwrap();
    for query in &all {
        let mut known = Vec::new();
        for found in name.captures_iter(query) {
            let sample = samples.iter().find(|(name, _)| *name == &found[1]);
            let (_, labels) = sample.unwrap_or_else(|| panic!("{} of {query} is not exposed", &found[1]));
            for label in found.get(2).map_or("", |labels| labels.as_str()).split(',') {
                let label = label.split(['=', '!']).next().unwrap().trim();
                assert!(label.is_empty() || labels.contains(&label), "{label} in {query}");
            }
            known.extend(labels);
        }
        assert!(!known.is_empty() || name.is_match(query), "{query} asks for nothing of ours");
        for label in
            by.captures_iter(query).flat_map(|by| by[1].split(", ").map(str::to_owned).collect::<Vec<_>>())
        {
            assert!(known.contains(&label.as_str()), "{label} in {query}");
        }
    }
}
