//! Sections of a report as pictures for the book.

use std::fs;
use std::path::Path;

use crate::browser::{self, Opened};

/// Width in CSS pixels: of the book's column, twice as fine.
const WIDTH: usize = 1000;

/// Says the page's height where [`height`] finds it.
const MEASURE: &str =
    "<script>document.body.dataset.height = document.documentElement.scrollHeight;</script></body>";

/// Writes `NAME-SECTION.png` into the folder `out` for every one of `sections` of the report `page`:
/// `SECTION`, as high as it is, or `SECTION:HEIGHT`, its beginning.
pub(crate) fn run(page: &Path, out: &Path, name: &str, sections: &[&str]) -> Result<(), String> {
    let browser = browser::browser()?;
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    let text = fs::read_to_string(page).map_err(failed(page))?;
    let home = std::env::temp_dir().join(format!("distil-pictures-{}", std::process::id()));
    fs::create_dir_all(&home).map_err(failed(&home))?;
    let copy = home.join("page.html");
    for section in sections {
        let (section, most) = wanted(section)?;
        if !text.contains(&format!("<section id=\"{section}\"")) {
            return Err(format!("{}: no section {section}", page.display()));
        }
        let style = format!(
            "<style>header, nav, footer, section:not(#{section}) {{ display: none !important; }}</style></head>"
        );
        let alone = text
            .replacen("</head>", &style, 1)
            .replacen("</body>", MEASURE, 1);
        fs::write(&copy, alone).map_err(failed(&copy))?;
        let open = |options: &[String], height: usize| -> Result<Opened, String> {
            browser::open(
                &browser,
                &home,
                &copy,
                options,
                &format!("{WIDTH},{height}"),
            )
        };
        let height = height(&open(&["--dump-dom".to_owned()], 100)?.dom)
            .ok_or_else(|| format!("{}: {section} has no height", page.display()))?;
        let picture = std::path::absolute(out.join(format!("{name}-{section}.png")));
        let picture = picture.map_err(|error| error.to_string())?;
        let screenshot = format!("--screenshot={}", picture.display());
        open(&[screenshot], height.min(most))?;
        println!("{}", picture.display());
    }
    fs::remove_dir_all(&home).map_err(failed(&home))
}

/// The section, and how high its picture may be.
fn wanted(word: &str) -> Result<(&str, usize), String> {
    match word.split_once(':') {
        None => Ok((word, usize::MAX)),
        Some((section, height)) => match height.parse() {
            Ok(height) if height > 0 => Ok((section, height)),
            _ => Err(format!("{word}: {height} is no height in pixels")),
        },
    }
}

fn height(dom: &str) -> Option<usize> {
    let rest = dom.split("data-height=\"").nth(1)?;
    rest.split('"').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_height_is_the_one_that_the_page_says() {
        assert_eq!(height(r#"<body data-height="812"><p>"#), Some(812));
        assert_eq!(height("<body><p>"), None);
    }

    #[test]
    fn a_section_may_have_a_height() {
        assert_eq!(wanted("curves"), Ok(("curves", usize::MAX)));
        assert_eq!(wanted("curves:900"), Ok(("curves", 900)));
        assert!(wanted("curves:0").is_err() && wanted("curves:high").is_err());
    }
}
