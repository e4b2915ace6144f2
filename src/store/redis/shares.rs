//! What all processes share beside jobs and records: buckets of tokens and holds. Each has a key that ends by itself.

use std::time::Duration;

use super::script::Call;
use super::{Core, REPLY, codec};
use crate::store::StoreError;
use crate::store::types::{Spend, Spent};

impl Core {
    /// Takes tokens; see [`Store::spend`](crate::store::Store::spend).
    pub(super) async fn spend(&self, scope: &str, spends: &[Spend]) -> Result<Spent, StoreError> {
        if spends.is_empty() {
            return Ok(Spent::Granted);
        }
        let keys: Vec<Vec<u8>> = spends.iter().map(|spend| self.keys.bucket(scope, &spend.bucket)).collect();
        let mut call = Call::new(keys);
        call.number(i128::from(self.clock.now().millis()) * 1_000);
        for spend in spends {
            let (reach, price) = spend.reach_and_price();
            call.number(reach).number(price);
        }
        call.number(Spend::SKEW_MICROS);
        let wait = codec::count(&self.link.script(&self.scripts.spend, call, REPLY).await?)?;
        Ok(if wait == 0 { Spent::Granted } else { Spent::Wait(Duration::from_micros(wait)) })
    }

    /// Takes or extends a hold; see [`Store::hold`](crate::store::Store::hold).
    pub(super) async fn take_hold(
        &self,
        name: &str,
        owner: u128,
        span: Duration,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut call = Call::new(vec![self.keys.hold(name)]);
        call.number(now.millis()).number(now.plus(span).millis()).value(format!("{owner:032x}"));
        Ok(codec::number(&self.link.script(&self.scripts.take_hold, call, REPLY).await?)? == 1)
    }

    /// Ends a hold; see [`Store::let_go`](crate::store::Store::let_go).
    pub(super) async fn let_go(&self, name: &str, owner: u128) -> Result<(), StoreError> {
        let mut call = Call::new(vec![self.keys.hold(name)]);
        call.value(format!("{owner:032x}"));
        self.link.script(&self.scripts.let_go, call, REPLY).await.map(|_| ())
    }
}
