//! Runs the HTTP/2 codec's tasks on the worker's own thread.

use std::future::Future;

/// Spawns onto the current thread; never moves a task to another one.
#[derive(Clone, Copy, Debug)]
pub struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
