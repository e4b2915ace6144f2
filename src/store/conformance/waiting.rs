//! How many jobs of a tenant wait.

use crate::domain::job::Outcome;
use crate::store::Lease;

use super::world::World;

pub async fn waiting_jobs_are_counted_by_lane(world: World) {
    let (one, two) = (world.connect("acme", 4).await, world.connect("acme", 4).await);
    let other = world.connect("globex", 4).await;
    world.fill("acme", one, 5).await;
    world.fill("acme", two, 3).await;
    world.fill("globex", other, 7).await;
    let acme = "acme".parse().unwrap();
    let waiting = async |lanes: &[_]| world.store.backlog(&acme, lanes).await.unwrap();
    assert_eq!((waiting(&[]).await, waiting(&[one]).await, waiting(&[one, two]).await), (0, 5, 8));
    // Those under lease are somebody's already; those that wait for a retry or are paused are not.
    let leases = world.lease(100).await;
    let of_one: Vec<_> = leases.iter().filter(|lease| lease.job.connection == one).cloned().collect();
    assert_eq!((of_one.len(), waiting(&[one, two]).await), (4, 1));
    world.settle(&of_one[..1], Outcome::Delivered).await;
    world.settle(&of_one[1..2], Outcome::Retry).await;
    assert_eq!(waiting(&[one, two]).await, 2);
    world.pause(two).await;
    let left: Vec<_> =
        leases.iter().filter(|lease| lease.job.connection == two).map(Lease::reference).collect();
    world.store.release(&left).await.unwrap();
    assert_eq!((waiting(&[two]).await, waiting(&[one, two]).await), (3, 5));
}
