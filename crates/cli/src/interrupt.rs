//! Ctrl-C: the first asks, the second insists. SIGTERM, which schedulers send before they kill,
//! counts as Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status of a run that was ended at once.
const INTERRUPTED: i32 = 1;

/// A flag that the first signal sets; `message` is said then. The second signal ends the program.
pub(crate) fn on_ctrl_c(message: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag still down.
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
    }
    // A signal handler may not print, so somebody else has to notice.
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        crate::failure::say(format_args!("\n{message}"));
    });
    Ok(asked)
}
