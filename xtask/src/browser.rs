//! Reports in a browser: two runs of formulas, `distil report` on one and on both, opened by a
//! headless Chromium. Nothing may be said on its console, every section and plot must be there, and
//! pictures of two widths stay in `target/report-in-a-browser` to be looked at.

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::ci::Counts;

/// What a browser is called.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// Widths of the pictures, in CSS pixels: a desk and a telephone.
const WIDTHS: [usize; 2] = [1280, 420];

/// Sections of a report of these runs.
const SECTIONS: [&str; 11] = [
    "summary",
    "results",
    "curves",
    "length",
    "landscape",
    "tokens",
    "samples",
    "configuration",
    "environment",
    "cost",
    "warnings",
];

/// Runs the checks in the folder `home`, which is made anew.
pub(crate) fn run(binary: &Path, home: &Path, counts: &mut Counts) -> Result<(), String> {
    let outcome = checks(binary, home, counts);
    if outcome.is_err() {
        counts.failed += 1;
    }
    outcome
}

fn checks(binary: &Path, home: &Path, counts: &mut Counts) -> Result<(), String> {
    let browser = browser()?;
    let failed = |error: std::io::Error| format!("{}: {error}", home.display());
    if home.exists() {
        fs::remove_dir_all(home).map_err(failed)?;
    }
    fs::create_dir_all(home).map_err(failed)?;
    // Names that are markup, if nobody escapes them.
    let names = ["llmr <em> & \"co\"", "minillm-b"];
    let better = fixture::Run {
        method: "llmr",
        steps: 1500,
        quality: 0.95,
    };
    let worse = fixture::Run {
        method: "minillm",
        steps: 900,
        quality: 0.8,
    };
    fixture::write(&home.join(names[0]), &better)?;
    fixture::write(&home.join(names[1]), &worse)?;
    for (runs, file) in [(&names[..1], "one.html"), (&names[..], "both.html")] {
        let report = Command::new(binary)
            .arg("report")
            .args(runs)
            .args(["--out", file, "--quiet"])
            .current_dir(home)
            .stdin(Stdio::null())
            .status();
        let made = report.is_ok_and(|status| status.success());
        check(counts, &format!("distil report writes {file}"), made, home)?;
        let page = home.join(file);
        let size = fs::metadata(&page).map_err(failed)?.len();
        check(
            counts,
            &format!("{file} is below 5 MB"),
            size < 5_000_000,
            home,
        )?;
        let opened = open(
            &browser,
            home,
            &page,
            &["--dump-dom".to_owned()],
            "1280,1000",
        )?;
        let quiet = !opened.errors.contains("CONSOLE");
        check(
            counts,
            &format!("{file}: nothing on the console"),
            quiet,
            home,
        )?;
        let missing = SECTIONS
            .iter()
            .find(|id| !opened.dom.contains(&format!("<section id=\"{id}\"")));
        check(
            counts,
            &format!("{file}: every section, {missing:?}"),
            missing.is_none(),
            home,
        )?;
        plots(counts, file, &opened.dom, runs.len(), home)?;
        let escaped = !opened.dom.contains("<em>") && !opened.dom.contains("<b>twice");
        check(
            counts,
            &format!("{file}: names and texts are no markup"),
            escaped,
            home,
        )?;
        pointer(&browser, counts, home, file)?;
        for width in WIDTHS {
            for (scheme, dark) in [("light", false), ("dark", true)] {
                let picture = home.join(format!("{file}-{width}-{scheme}.png"));
                let mut options = vec![format!("--screenshot={}", picture.display())];
                if dark {
                    options.push("--force-dark-mode".to_owned());
                    options.push("--blink-settings=preferredColorScheme=0".to_owned());
                }
                open(&browser, home, &page, &options, &format!("{width},16000"))?;
                let there = fs::metadata(&picture).is_ok_and(|picture| picture.len() > 20_000);
                check(
                    counts,
                    &format!("{file}: a picture, {width} wide, {scheme}"),
                    there,
                    home,
                )?;
            }
        }
    }
    println!("   pictures are in {}", home.display());
    Ok(())
}

/// A copy of the page whose own script points at its first plot: values must appear beside it.
fn pointer(browser: &Path, counts: &mut Counts, home: &Path, file: &str) -> Result<(), String> {
    const POINT: &str = "<script>const plot = document.querySelector('svg.plot'); \
        plot.scrollIntoView(); const box = plot.getBoundingClientRect(); \
        plot.dispatchEvent(new PointerEvent('pointermove', \
        {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2}));</script></body>";
    let page = home.join(file);
    let text = fs::read_to_string(&page).map_err(|error| format!("{file}: {error}"))?;
    let copy = home.join(format!("pointed-{file}"));
    fs::write(&copy, text.replace("</body>", POINT)).map_err(|error| format!("{file}: {error}"))?;
    let dom = open(
        browser,
        home,
        &copy,
        &["--dump-dom".to_owned()],
        "1280,1000",
    )?
    .dom;
    let tip = dom
        .split("<div id=\"tip\"")
        .nth(1)
        .and_then(|rest| rest.split("<script>").next());
    let shown = tip.is_some_and(|tip| tip.contains("reward  ") && !tip.starts_with(" hidden"));
    check(
        counts,
        &format!("{file}: values under the pointer"),
        shown,
        home,
    )
}

/// The plots that these runs must give, each with a curve or points in it.
fn plots(
    counts: &mut Counts,
    file: &str,
    dom: &str,
    runs: usize,
    home: &Path,
) -> Result<(), String> {
    let mut titles = vec![
        "loss",
        "ROUGE-L",
        "forward KL",
        "gradient norm",
        "learning rate",
        "speed",
        "response length",
        "EOS rate",
        "student's entropy",
        "ExError% against length",
        "reward against ROUGE-L",
        "reward against response length",
    ];
    if runs == 1 {
        titles.extend([
            "reward and KL",
            "gradient norms in the logits",
            "phases of a step",
            "KL by position",
        ]);
    }
    for title in titles {
        let heading = format!("<figure><h4>{title}</h4>");
        let figure = dom
            .split(&heading)
            .nth(1)
            .and_then(|rest| rest.split("</figure>").next());
        let drawn = figure.is_some_and(|figure| {
            let lines = figure.split(" d=\"M").count() > 1;
            figure.contains("<svg class=\"plot\"") && lines && !figure.contains("NaN")
        });
        check(counts, &format!("{file}: the plot of {title}"), drawn, home)?;
    }
    Ok(())
}

/// What a browser made of a page.
pub(crate) struct Opened {
    pub(crate) dom: String,
    errors: String,
}

/// Opens a page in a window of so many CSS pixels, `WIDTH,HEIGHT`; the browser's profile is in `home`.
pub(crate) fn open(
    browser: &Path,
    home: &Path,
    page: &Path,
    options: &[String],
    window: &str,
) -> Result<Opened, String> {
    let address = format!("file://{}", encoded(page));
    let output = Command::new(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args([
            "--enable-logging=stderr",
            "--v=0",
            "--no-first-run",
            "--disable-extensions",
        ])
        .arg(format!(
            "--user-data-dir={}",
            home.join("profile").display()
        ))
        .arg(format!("--window-size={window}"))
        .args(options)
        .arg(&address)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", browser.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(Opened {
            dom: text(&output.stdout),
            errors: text(&output.stderr),
        }),
        false => Err(format!(
            "{} {address}: {}",
            browser.display(),
            text(&output.stderr)
        )),
    }
}

/// A path as part of an address.
fn encoded(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    text.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// The browser that is there; else the one that apt installs.
pub(crate) fn browser() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("DISTIL_CHROMIUM") {
        return Ok(PathBuf::from(named));
    }
    if let Some(found) = found() {
        return Ok(found);
    }
    // As root, or through sudo where it asks for no password.
    for program in [&["apt-get"][..], &["sudo", "-n", "apt-get"]] {
        let run = |arguments: &[&str]| {
            let status = Command::new(program[0])
                .args(&program[1..])
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        if run(&["update"]) && run(&["install", "-y", "--no-install-recommends", "chromium"]) {
            break;
        }
    }
    found().ok_or_else(|| {
        "there is no Chromium to open reports in; install one (apt-get install chromium), or set DISTIL_CHROMIUM to its \
         path, then: cargo xtask browser"
            .to_owned()
    })
}

fn found() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut candidates = NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    candidates.find(|candidate| candidate.is_file())
}

fn check(counts: &mut Counts, what: &str, holds: bool, home: &Path) -> Result<(), String> {
    println!("{} {what}", if holds { "ok  " } else { "FAIL" });
    if !holds {
        return Err(format!(
            "cargo xtask browser, and look into {}",
            home.display()
        ));
    }
    counts.passed += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_an_address() {
        assert_eq!(
            encoded(Path::new("/a b/<é>.html")),
            "/a%20b/%3C%C3%A9%3E.html"
        );
    }
}
