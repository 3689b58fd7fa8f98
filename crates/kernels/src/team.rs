//! Loops whose iterations threads share, and threads that stay awake between them.
//!
//! Decoding a token is three hundred loops of a few microseconds each. Given to the thread pool one
//! by one, most of the time goes to threads that fall asleep and are woken. [`together`] asks the
//! pool's threads once and keeps them for all loops of its work: whoever is free takes the next
//! iteration from a counter and otherwise waits by spinning. Nothing waits for a thread that has
//! not come, so work in the hands of a busy pool is slower, not stuck.
//!
//! Which thread takes which iteration is chance. What an iteration computes does not depend on it.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use rayon::prelude::*;

/// What this thread is doing.
#[derive(Clone, Copy)]
enum Role {
    /// Nothing in a team: loops go to the thread pool.
    Free,
    /// It leads this team, which outlives the role.
    Leader(*const Team),
    /// It is inside an iteration: loops in it are its own affair.
    Busy,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Free) };
}

/// Sets this thread's role until dropped.
struct Acting(Role);

impl Acting {
    fn new(role: Role) -> Self {
        Self(ROLE.replace(role))
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        ROLE.set(self.0);
    }
}

/// Bits of [`Team::state`] that hold an iteration, and how many there are.
const BITS: u32 = 24;
const MASK: u64 = (1 << BITS) - 1;

/// Iterations that a team takes; beyond, late threads' additions could run over the counter's bits.
const MOST: usize = 1 << (BITS - 1);

/// Looks at the counter before a waiting thread offers its core to others.
const SPINS: usize = 4096;

/// A loop's body: a pointer to it, and the function that calls it.
type Call = unsafe fn(*const (), usize);

#[derive(Default)]
struct Team {
    /// The number of the loop, its iterations and the next of them, in one word: whoever takes an
    /// iteration knows of which loop it is.
    state: AtomicU64,
    /// The loop's body. Written while no iteration is open.
    body: AtomicPtr<()>,
    call: AtomicUsize,
    /// Iterations that are not finished.
    open: AtomicUsize,
    ended: AtomicBool,
    /// What an iteration panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Does `work` with the pool's threads at hand for the loops in it. Work in it that goes to the thread
/// pool by other ways runs on one thread.
pub fn together<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if !matches!(ROLE.get(), Role::Free) || rayon::current_num_threads() == 1 {
        return work();
    }
    let team = Team::default();
    rayon::scope(|scope| {
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(|_| team.help());
        }
        // Dropped before the scope waits for its threads, also if `work` panics.
        let _dismissed = Dismissed(&team);
        let _leading = Acting::new(Role::Leader(&team));
        work()
    })
}

/// Sends a team's threads away when dropped.
struct Dismissed<'a>(&'a Team);

impl Drop for Dismissed<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

/// Calls `work` for every number below `count`.
pub(crate) fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    match ROLE.get() {
        _ if count <= 1 => (0..count).for_each(work),
        Role::Busy => (0..count).for_each(work),
        Role::Leader(team) if count < MOST => {
            // SAFETY: `together` keeps the team until after this thread stops leading it.
            #[allow(unsafe_code)]
            let team = unsafe { &*team };
            team.run(count, &work);
        }
        Role::Leader(_) | Role::Free => (0..count).into_par_iter().for_each(&work),
    }
}

/// Calls `work` for consecutive parts of `size` numbers (the last may be shorter), with each part's
/// number.
pub(crate) fn for_each_chunk<T: Send>(
    data: &mut [T],
    size: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    struct Parts<T>(*mut T);
    // SAFETY: each thread makes slices of other parts.
    #[allow(unsafe_code)]
    unsafe impl<T: Send> Sync for Parts<T> {}
    impl<T> Parts<T> {
        /// # Safety
        /// The part must be inside the data, and nobody else may use it.
        #[allow(unsafe_code, clippy::mut_from_ref)]
        unsafe fn part(&self, start: usize, length: usize) -> &mut [T] {
            // SAFETY: the caller's.
            unsafe { std::slice::from_raw_parts_mut(self.0.add(start), length) }
        }
    }
    let (parts, length) = (Parts(data.as_mut_ptr()), data.len());
    for_each(length.div_ceil(size), |index| {
        let start = index * size;
        // SAFETY: parts do not overlap, and `for_each` calls once for each number.
        #[allow(unsafe_code)]
        let part = unsafe { parts.part(start, size.min(length - start)) };
        work(index, part);
    });
}

/// What `work` makes of every number below `count`, in order.
pub(crate) fn map<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let mut results: Vec<Option<R>> = (0..count).map(|_| None).collect();
    for_each_chunk(&mut results, 1, |index, result| {
        result[0] = Some(work(index))
    });
    results.into_iter().flatten().collect()
}

impl Team {
    fn run<F: Fn(usize) + Sync>(&self, count: usize, work: &F) {
        /// # Safety
        /// `body` is an `F`.
        #[allow(unsafe_code)]
        unsafe fn call<F: Fn(usize)>(body: *const (), index: usize) {
            // SAFETY: the caller's.
            unsafe { (*body.cast::<F>())(index) }
        }
        self.body
            .store((&raw const *work).cast_mut().cast(), Ordering::Relaxed);
        let function: Call = call::<F>;
        self.call.store(function as usize, Ordering::Relaxed);
        self.open.store(count, Ordering::Relaxed);
        let number = (self.state.load(Ordering::Relaxed) >> (2 * BITS)).wrapping_add(1);
        let offered = number << (2 * BITS) | (count as u64) << BITS;
        // Whoever sees this sees the body, too.
        self.state.store(offered, Ordering::Release);
        while self.take() {}
        let mut spins = 0;
        while self.open.load(Ordering::Acquire) > 0 {
            wait(&mut spins);
        }
        let panic = self.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// What the other threads do until the team is dismissed.
    fn help(&self) {
        // The pool may hand this to the leader itself, while it waits for something else.
        if !matches!(ROLE.get(), Role::Free) {
            return;
        }
        let mut spins = 0;
        while !self.ended.load(Ordering::Acquire) {
            match self.take() {
                true => spins = 0,
                false => wait(&mut spins),
            }
        }
    }

    /// Does one iteration, if there is one that nobody has.
    fn take(&self) -> bool {
        let left = |state: u64| state & MASK < state >> BITS & MASK;
        if !left(self.state.load(Ordering::Relaxed)) {
            return false;
        }
        // Acquires what the leader wrote. Threads that come too late add to the counter at most
        // once each.
        let state = self.state.fetch_add(1, Ordering::AcqRel);
        if !left(state) {
            return false;
        }
        let index = (state & MASK) as usize;
        // Open until this iteration is finished, so the body is still the one of this loop.
        let body = self.body.load(Ordering::Relaxed);
        let call = self.call.load(Ordering::Relaxed);
        let done = {
            let _busy = Acting::new(Role::Busy);
            catch_unwind(AssertUnwindSafe(|| {
                // SAFETY: `run` stored a function of this type, and the body that it is for, which
                // it keeps until no iteration is open.
                #[allow(unsafe_code)]
                unsafe {
                    let call: Call = std::mem::transmute::<usize, Call>(call);
                    call(body, index);
                }
            }))
        };
        if let Err(panic) = done {
            *self.panic.lock().unwrap_or_else(|e| e.into_inner()) = Some(panic);
        }
        self.open.fetch_sub(1, Ordering::Release);
        true
    }
}

/// A moment of waiting: longer the longer it lasts already.
fn wait(spins: &mut usize) {
    match *spins < SPINS {
        true => std::hint::spin_loop(),
        false => std::thread::yield_now(),
    }
    *spins += 1;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A thousand short loops of every length: each number exactly once, seen by the next loop.
    #[test]
    fn every_number_is_done_once_and_before_the_next_loop() {
        let mut counts = vec![0_u32; 100];
        together(|| {
            for round in 0..1000_usize {
                let size = 1 + round % 7;
                for_each_chunk(&mut counts, size, |index, part| {
                    assert_eq!(part.len(), size.min(100 - index * size));
                    for count in part {
                        assert_eq!(*count as usize, round);
                        *count += 1;
                    }
                });
            }
        });
        assert!(counts.iter().all(|&count| count == 1000));
    }

    /// A loop ends when its slowest iteration has, whoever does it.
    #[test]
    fn a_loop_waits_for_the_iterations_of_other_threads() {
        let leader = std::thread::current().id();
        let (leader, helped) = (Mutex::new(leader), AtomicUsize::new(0));
        together(|| {
            *leader.lock().unwrap() = std::thread::current().id();
            for _ in 0..20 {
                let done = AtomicUsize::new(0);
                for_each(4, |_| {
                    let own = *leader.lock().unwrap() == std::thread::current().id();
                    std::thread::sleep(Duration::from_millis(if own { 1 } else { 6 }));
                    helped.fetch_add(usize::from(!own), Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(done.into_inner(), 4);
            }
        });
        let alone = rayon::current_num_threads() == 1;
        assert!(alone || helped.into_inner() > 0, "nobody helped");
    }

    #[test]
    fn loops_in_loops_and_teams_in_teams_work() {
        let sums: Vec<AtomicUsize> = (0..8).map(|_| AtomicUsize::new(0)).collect();
        let add = || {
            for_each(8, |i| {
                for_each(5, |j| {
                    together(|| sums[i].fetch_add(j, Ordering::Relaxed));
                });
            });
        };
        add();
        together(add);
        together(|| together(add));
        // What goes to the pool by another way is done, too.
        together(|| {
            (0..8).into_par_iter().for_each(|i| {
                sums[i].fetch_add(1, Ordering::Relaxed);
            })
        });
        assert!(sums.iter().all(|s| s.load(Ordering::Relaxed) == 31));
    }

    #[test]
    fn many_teams_at_once_do_not_wait_for_each_other() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let total = AtomicUsize::new(0);
                        together(|| {
                            for_each(64, |i| {
                                total.fetch_add(i, Ordering::Relaxed);
                            });
                        });
                        assert_eq!(total.into_inner(), 2016);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_working() {
        for _ in 0..20 {
            let caught = catch_unwind(|| {
                together(|| for_each(16, |i| assert!(i != 7, "seven")));
            });
            assert!(caught.is_err());
        }
        let after = together(|| {
            let total = AtomicUsize::new(0);
            for_each(4, |i| {
                total.fetch_add(i, Ordering::Relaxed);
            });
            total.into_inner()
        });
        assert_eq!(after, 6);
    }
}
