//! What may not take for ever: a request, its answer, a stream on which nothing moves, a stream as a whole. One timer per
//! worker for all requests, not one per request; where nothing is limited there is no [`Clock`] and nothing is done.
//!
//! The exchange begins a clock ([`Timers::begin`]) when it knows a limit, changes it when the route has others
//! ([`Clock::limit`]), and says when bytes moved ([`Clock::touch`]: one cell is written) and when the request is complete
//! ([`Clock::request_read`]). Whoever waits for the request asks [`Clock::poll_due`] beside what it waits for. One task at a time is
//! woken: the last that asked. Dropping the clock ends it. (A head that comes in pieces is timed by its codec.)
//!
//! A limit is never noticed early, and at most [`GRAIN`] late. The worker's task ([`Timers::run`]) looks at the running
//! clocks only when the earliest of them may have run out, and at most once per [`GRAIN`]; it sleeps without a timer
//! while there is none. Memory: one small entry per running clock, reused.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::decide::reply::Failure;

/// How late a limit may be noticed, and how often the clocks are looked at, at most.
pub const GRAIN: Duration = Duration::from_millis(20);

/// The limits of one request; `None`: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the beginning to the end of the request's body.
    pub request: Option<Duration>,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// From the beginning to the end of the answer.
    pub stream: Option<Duration>,
    /// From the end of the request to the end of the answer.
    pub answer: Option<Duration>,
}

impl Limits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which limit has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    Request,
    Idle,
    Stream,
    Answer,
}

impl Overdue {
    pub fn failure(self) -> Failure {
        match self {
            Self::Request => Failure::RequestTimeout,
            Self::Idle => Failure::StreamIdle {
                response_started: false,
            },
            Self::Stream => Failure::MaxStreamDuration,
            Self::Answer => Failure::UpstreamTimeout,
        }
    }
}

/// One request's clock.
pub struct Clock {
    inner: Rc<Inner>,
    slot: usize,
    timers: Rc<Timers>,
}

struct Inner {
    limits: Cell<Limits>,
    begun: Instant,
    moved: Cell<Instant>,
    /// Since when the answer is waited for, at the earliest.
    routed: Cell<Instant>,
    /// When the request was complete.
    read: Cell<Option<Instant>>,
    overdue: Cell<Option<Overdue>>,
    waker: RefCell<Option<Waker>>,
}

impl Inner {
    /// The limit that passes next, and when.
    fn next(&self) -> Option<(Instant, Overdue)> {
        let Limits {
            request,
            idle,
            stream,
            answer,
        } = self.limits.get();
        let (begun, read) = (self.begun, self.read.get());
        let of = |limit: Option<Duration>, since: Instant, kind| {
            // A limit that no clock can show is none.
            limit.and_then(|limit| Some((since.checked_add(limit)?, kind)))
        };
        let asked = read.map(|read| read.max(self.routed.get()));
        [
            of(request.filter(|_| read.is_none()), begun, Overdue::Request),
            of(idle, self.moved.get(), Overdue::Idle),
            of(stream, begun, Overdue::Stream),
            asked.and_then(|asked| of(answer, asked, Overdue::Answer)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }
}

impl Clock {
    /// Bytes moved.
    pub fn touch(&self) {
        if self.inner.limits.get().idle.is_some() {
            self.touch_at(Instant::now());
        }
    }

    /// The same, for who knows the time already.
    pub fn touch_at(&self, now: Instant) {
        self.inner.moved.set(now);
    }

    /// The request is complete.
    pub fn request_read(&self, now: Instant) {
        if self.inner.read.get().is_none() {
            self.inner.read.set(Some(now));
            self.changed();
        }
    }

    /// Other limits, counted from the same beginning.
    pub fn limit(&self, limits: Limits) {
        self.inner.limits.set(limits);
        self.changed();
    }

    /// The answer is waited for from now on, or from the request's end.
    pub fn answer_within(&self, limit: Duration, now: Instant) {
        self.inner.routed.set(now);
        self.limit(Limits {
            answer: Some(limit),
            ..self.inner.limits.get()
        });
    }

    /// Ready when a limit has passed. Wakes the last task that asked.
    pub fn poll_due(&self, cx: &mut Context<'_>) -> Poll<Overdue> {
        if let Some(overdue) = self.inner.overdue.get() {
            return Poll::Ready(overdue);
        }
        let mut waker = self.inner.waker.borrow_mut();
        match &mut *waker {
            Some(known) => known.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn changed(&self) {
        if let Some((at, _)) = self.inner.next() {
            self.timers.look_by(at);
        }
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Clock")
            .field(&self.inner.limits.get())
            .finish()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.timers.remove(self.slot);
    }
}

/// The running clocks of one worker.
#[derive(Default)]
pub struct Timers {
    slots: RefCell<Vec<Option<Rc<Inner>>>>,
    free: RefCell<Vec<usize>>,
    /// When the task looks next.
    look: Cell<Option<Instant>>,
    sooner: Notify,
}

impl Timers {
    /// A clock for a request that began then, if anything is limited.
    pub fn begin(self: &Rc<Self>, limits: Limits, begun: Instant) -> Option<Clock> {
        (!limits.is_empty()).then(|| self.begin_at(limits, begun))
    }

    fn begin_at(self: &Rc<Self>, limits: Limits, now: Instant) -> Clock {
        let inner = Rc::new(Inner {
            limits: Cell::new(limits),
            begun: now,
            moved: Cell::new(now),
            routed: Cell::new(now),
            read: Cell::new(None),
            overdue: Cell::new(None),
            waker: RefCell::new(None),
        });
        let mut slots = self.slots.borrow_mut();
        let slot = match self.free.borrow_mut().pop() {
            Some(slot) => slot,
            None => {
                slots.push(None);
                slots.len() - 1
            }
        };
        slots[slot] = Some(inner.clone());
        drop(slots);
        let clock = Clock {
            inner,
            slot,
            timers: self.clone(),
        };
        clock.changed();
        clock
    }

    fn remove(&self, slot: usize) {
        self.slots.borrow_mut()[slot] = None;
        self.free.borrow_mut().push(slot);
    }

    /// Makes the task look no later than then.
    fn look_by(&self, at: Instant) {
        if self.look.get().is_none_or(|look| at < look) {
            self.look.set(Some(at));
            self.sooner.notify_one();
        }
    }

    /// Looks at all clocks: wakes those whose limit has passed, returns when the next one may pass.
    fn pass(&self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for inner in self.slots.borrow().iter().flatten() {
            if inner.overdue.get().is_some() {
                continue;
            }
            match inner.next() {
                Some((at, overdue)) if at <= now => {
                    inner.overdue.set(Some(overdue));
                    if let Some(waker) = inner.waker.borrow_mut().take() {
                        waker.wake();
                    }
                }
                Some((at, _)) => next = Some(next.map_or(at, |known: Instant| known.min(at))),
                None => {}
            }
        }
        // Room that one busy moment needed is given back.
        let mut slots = self.slots.borrow_mut();
        if slots.len() > 64 && slots.iter().all(Option::is_none) {
            *slots = Vec::new();
            *self.free.borrow_mut() = Vec::new();
        }
        next
    }

    /// The worker's task.
    pub async fn run(self: Rc<Self>) {
        loop {
            match self.look.get() {
                None => self.sooner.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.into()) => {
                            let now = Instant::now();
                            let next = self.pass(now);
                            self.look.set(next.map(|next| next.max(now + GRAIN)));
                        }
                        () = self.sooner.notified() => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn asked(clock: &Clock) -> Poll<Overdue> {
        clock.poll_due(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn nothing_limited_is_no_clock() {
        let timers = Rc::new(Timers::default());
        assert!(timers.begin(Limits::default(), Instant::now()).is_none());
        assert_eq!(timers.look.get(), None);
    }

    #[test]
    fn each_limit_passes_at_its_time() {
        let timers = Rc::new(Timers::default());
        let start = Instant::now();
        let all = Limits {
            request: Some(ms(20)),
            idle: Some(ms(30)),
            stream: Some(ms(100)),
            answer: None,
        };
        let body = timers.begin_at(all, start);
        let idle = timers.begin_at(all, start);
        idle.request_read(start);
        let long = timers.begin_at(all, start);
        long.request_read(start);
        let routed = timers.begin_at(all, start);
        routed.answer_within(ms(10), start + ms(12));
        assert_eq!(timers.pass(start + ms(19)), Some(start + ms(20)));
        routed.request_read(start + ms(15));
        assert_eq!(timers.pass(start + ms(20)), Some(start + ms(25)));
        assert_eq!(
            (asked(&body), asked(&routed)),
            (Poll::Ready(Overdue::Request), Poll::Pending)
        );
        long.touch_at(start + ms(25));
        assert_eq!(timers.pass(start + ms(30)), Some(start + ms(55)));
        assert_eq!(asked(&routed), Poll::Ready(Overdue::Answer));
        assert_eq!(
            (asked(&idle), asked(&long)),
            (Poll::Ready(Overdue::Idle), Poll::Pending)
        );
        long.touch_at(start + ms(90));
        timers.pass(start + ms(100));
        assert_eq!(asked(&long), Poll::Ready(Overdue::Stream));
    }

    #[test]
    fn a_clock_that_is_dropped_leaves_its_place() {
        let timers = Rc::new(Timers::default());
        let limits = Limits {
            stream: Some(ms(1)),
            ..Limits::default()
        };
        for _ in 0..1000 {
            timers.begin(limits, Instant::now());
        }
        assert_eq!(timers.slots.borrow().len(), 1);
        let many: Vec<_> = (0..100).map(|_| timers.begin(limits, Instant::now())).collect();
        drop(many);
        assert_eq!(timers.pass(Instant::now() + ms(10)), None);
        assert_eq!(timers.slots.borrow().len(), 0);
        assert!(timers.begin(limits, Instant::now()).is_some());
    }

    #[tokio::test]
    async fn the_task_wakes_who_waits() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let timers = Rc::new(Timers::default());
                tokio::task::spawn_local(timers.clone().run());
                let limits = Limits {
                    idle: Some(ms(40)),
                    ..Limits::default()
                };
                let clock = timers.begin(limits, Instant::now()).unwrap();
                let start = Instant::now();
                tokio::time::sleep(ms(30)).await;
                clock.touch();
                assert_eq!(poll_fn(|cx| clock.poll_due(cx)).await, Overdue::Idle);
                assert!(start.elapsed() >= ms(70), "{:?}", start.elapsed());
                // A sooner limit is noticed although the task sleeps for a later one.
                let late = Limits {
                    stream: Some(Duration::from_secs(3600)),
                    ..Limits::default()
                };
                let clock = timers.begin(late, Instant::now()).unwrap();
                tokio::task::yield_now().await;
                clock.limit(Limits {
                    stream: Some(ms(30)),
                    ..late
                });
                assert_eq!(poll_fn(|cx| clock.poll_due(cx)).await, Overdue::Stream);
                // Nothing runs any more: the task sleeps without a timer.
                drop(clock);
            })
            .await;
    }
}
