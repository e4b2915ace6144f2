//! A person at a desk: a gateway of their own, and the command line with its operator's key.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::running::Served;
use super::{patchbay, stdout, told};

/// Settings with which a gateway sends to this machine.
pub(super) const TO_LOOPBACK: &str = "[egress]\nallow_http = true\nallow_ranges = ['127.0.0.0/8']\n";

pub(super) struct Desk {
    pub folder: tempfile::TempDir,
    pub served: Served,
    pub key: String,
}

impl Desk {
    /// A gateway with these settings and the tenant `acme`.
    pub fn open(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("patchbay.toml"), settings).unwrap();
        let served = Served::start(folder.path());
        let key = served.told["operator_key"].as_str().unwrap().to_owned();
        let desk = Self { folder, served, key };
        stdout(&desk.ask_for(&["tenants", "create", "acme"]));
        desk
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn ask_for(&self, arguments: &[&str]) -> Output {
        patchbay(self.root())
            .args(arguments)
            .env("PATCHBAY_URL", self.served.url())
            .env("PATCHBAY_KEY", &self.key)
            .output()
            .unwrap()
    }

    /// Exit code, standard output and standard error.
    pub fn ask(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.ask_for(arguments);
        let out = String::from_utf8(output.stdout.clone()).unwrap();
        let (code, error) = told(&output);
        (code, out, error)
    }

    /// What it answers as JSON.
    pub fn shown(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&stdout(&self.ask_for(&[arguments, &["--json"]].concat()))).unwrap()
    }
}
