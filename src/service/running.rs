//! Which idempotency keys have a request under way in this process.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// The keys, hashed.
#[derive(Debug, Default, Clone)]
pub struct Running(Arc<Mutex<HashSet<[u8; 16]>>>);

/// Holds a key until it is dropped, whatever happens to the request.
#[derive(Debug)]
pub struct Turn {
    running: Running,
    key: [u8; 16],
}

impl Running {
    /// Takes the key, unless another request has it.
    pub fn begin(&self, key: [u8; 16]) -> Option<Turn> {
        self.0.lock().insert(key).then(|| Turn { running: self.clone(), key })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.0.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_free_again_when_its_turn_ends() {
        let running = Running::default();
        let turn = running.begin([1; 16]).unwrap();
        assert!(running.begin([1; 16]).is_none());
        assert!(running.begin([2; 16]).is_some());
        drop(turn);
        assert!(running.begin([1; 16]).is_some());
    }
}
