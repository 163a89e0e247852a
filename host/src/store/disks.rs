//! The disks of several databases as one: as bad as the worst of them.

use tokio::sync::watch;

use super::Disk;

/// How the disks of all databases are.
#[derive(Clone)]
pub struct Disks(Vec<watch::Receiver<Disk>>);

impl Disks {
    /// Those of these writers.
    #[must_use]
    pub fn of(disks: impl IntoIterator<Item = watch::Receiver<Disk>>) -> Self {
        Self(disks.into_iter().collect())
    }

    /// How the worst of them is.
    #[must_use]
    pub fn now(&self) -> Disk {
        let disks = self.0.iter().map(|disk| disk.borrow().clone());
        disks.max_by_key(badness).unwrap_or_default()
    }

    /// Waits until one of them has changed. Answers false once none can any more.
    ///
    /// Cancel safe.
    pub async fn changed(&mut self) -> bool {
        while !self.0.is_empty() {
            let changes = self.0.iter_mut().map(|disk| Box::pin(disk.changed()));
            let (changed, index) = first(changes.collect()).await;
            if changed.is_ok() {
                return true;
            }
            // Its writer has ended.
            self.0.swap_remove(index);
        }
        false
    }
}

/// The first of some futures that is ready, and which it was.
async fn first<F: Future + Unpin>(mut futures: Vec<F>) -> (F::Output, usize) {
    std::future::poll_fn(|context| {
        for (index, future) in futures.iter_mut().enumerate() {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready((output, index));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn badness(disk: &Disk) -> u8 {
    match disk {
        Disk::Sound => 0,
        Disk::Full => 1,
        Disk::Broken(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_worst_counts_and_each_change_is_heard() {
        let (one, of_one) = watch::channel(Disk::Sound);
        let (two, of_two) = watch::channel(Disk::Sound);
        let mut disks = Disks::of([of_one, of_two]);
        assert_eq!(disks.now(), Disk::Sound);
        two.send_replace(Disk::Full);
        assert!(disks.changed().await);
        assert_eq!(disks.now(), Disk::Full);
        let broken = Disk::Broken("x".to_owned());
        one.send_replace(broken.clone());
        assert!(disks.changed().await);
        assert_eq!(disks.now(), broken);
        drop(one);
        two.send_replace(Disk::Sound);
        assert!(disks.changed().await);
        drop(two);
        assert!(!disks.changed().await);
    }
}
