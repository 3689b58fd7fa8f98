//! HTML: text that is text and nothing else, a page of sections, tables.
//!
//! Whatever comes from a file (names, prompts, answers, tokens) goes through [`escape`].

use std::fmt::Write as _;

/// A part of the page.
#[derive(Debug)]
pub(super) struct Section {
    /// Anchor, of letters only.
    pub(super) id: &'static str,
    /// Heading.
    pub(super) title: &'static str,
    /// HTML.
    pub(super) body: String,
}

/// Text as HTML, in an element or in an attribute with double quotes. Control characters, which a
/// broken model says and HTML forbids, become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            // What turns the direction of the text around it.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The file.
pub(super) fn page(title: &str, subtitle: &str, sections: &[Section]) -> String {
    let mut contents = String::new();
    let mut bodies = String::new();
    for Section { id, title, body } in sections {
        let _ = write!(contents, "<li><a href=\"#{id}\">{title}</a></li>");
        let _ = write!(
            bodies,
            "<section id=\"{id}\">\n<h2>{title}</h2>\n{body}\n</section>\n"
        );
    }
    let title = escape(title);
    let (style, script) = (include_str!("page.css"), include_str!("page.js"));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n\
         <nav aria-label=\"Contents\"><ol>{contents}</ol></nav>\n\
         <main>\n<header><p class=\"kind\">distil report</p><h1>{title}</h1><p class=\"sub\">{subtitle}</p></header>\n\
         {bodies}</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )
}

/// A paragraph; `html` is HTML.
pub(super) fn paragraph(html: &str) -> String {
    format!("<p>{html}</p>\n")
}

/// A paragraph of explanation; `html` is HTML.
pub(super) fn about(html: &str) -> String {
    format!("<p class=\"about\">{html}</p>\n")
}

/// What a reader looks for and does not find, and the command that makes it.
pub(super) fn missing(html: &str) -> String {
    format!("<p class=\"missing\">{html}</p>\n")
}

/// A third heading.
pub(super) fn heading(text: &str) -> String {
    format!("<h3>{}</h3>\n", escape(text))
}

/// A heading of a group of plots with its explanation; both are plain text.
pub(super) fn introduced(title: &str, text: &str) -> String {
    format!(
        "{}<p class=\"about\">{}</p>\n",
        heading(title),
        escape(text)
    )
}

/// A command to copy.
pub(super) fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// A name of the colour of its curve, with a sample of the line.
pub(super) fn named(style: usize, name: &str) -> String {
    format!("{}<b class=\"name\">{}</b>", swatch(style), escape(name))
}

/// A piece of a curve's line.
pub(super) fn swatch(style: usize) -> String {
    format!(
        "<svg class=\"swatch {}\" viewBox=\"0 0 24 10\" aria-hidden=\"true\">\
         <path class=\"line\" d=\"M1,5L23,5\"/></svg>",
        super::plot::classes(style)
    )
}

/// A table in a box of its own, which scrolls where the page is narrow. Cells are HTML; the first
/// column holds what the rows are about.
pub(super) fn table(class: &str, head: &[String], rows: &[Vec<String>]) -> String {
    let mut text = format!("<div class=\"wide\"><table class=\"{class}\">");
    if !head.is_empty() {
        text.push_str("<thead><tr>");
        for cell in head {
            let _ = write!(text, "<th scope=\"col\">{cell}</th>");
        }
        text.push_str("</tr></thead>");
    }
    text.push_str("<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (index, cell) in row.iter().enumerate() {
            let _ = match index {
                0 => write!(text, "<th scope=\"row\">{cell}</th>"),
                _ => write!(text, "<td>{cell}</td>"),
            };
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table></div>\n");
    text
}

/// Students that stand side by side in a table; more stand one below the other.
pub(super) const COLUMNS: usize = 4;

/// A table whose columns are students, with these as its rows if `turn`.
pub(super) fn turned(class: &str, head: &[String], rows: &[Vec<String>], turn: bool) -> String {
    if !turn {
        return table(class, head, rows);
    }
    let corner = head.first().map(|_| String::new());
    let metrics = rows.iter().filter_map(|row| row.first().cloned());
    let top: Vec<String> = corner.into_iter().chain(metrics).collect();
    let student = |(place, name): (usize, &String)| -> Vec<String> {
        let cells = rows.iter().map(|row| row.get(place).cloned());
        let cells = cells.map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
        std::iter::once(name.clone()).chain(cells).collect()
    };
    let students: Vec<Vec<String>> = head.iter().enumerate().skip(1).map(student).collect();
    table(&format!("{class} turned"), &top, &students)
}

/// Something long that is opened on demand; open on paper.
pub(super) fn details(summary: &str, body: &str) -> String {
    format!("<details><summary>{summary}</summary>\n{body}</details>\n")
}

/// A plot with its title and what it shows; the title is plain text, the caption HTML.
pub(super) fn figure(title: &str, svg: &str, caption: &str) -> String {
    let caption = match caption.is_empty() {
        true => String::new(),
        false => format!("<figcaption>{caption}</figcaption>"),
    };
    format!(
        "<figure><h4>{}</h4>{svg}{caption}</figure>\n",
        escape(title)
    )
}

/// Plots side by side.
pub(super) fn figures(figures: &[String]) -> String {
    match figures.is_empty() {
        true => String::new(),
        false => format!("<div class=\"figures\">{}</div>\n", figures.concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(
            escape("</script><b a=\"x\" b='y'>&amp;"),
            "&lt;/script&gt;&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;"
        );
        assert_eq!(
            escape("a\0b\u{1b}c\nd\u{202e}e\u{85}"),
            "a\u{fffd}b\u{fffd}c\nd\u{fffd}e\u{fffd}"
        );
    }

    #[test]
    fn many_students_stand_below_each_other() {
        let cells = |texts: &[&str]| -> Vec<String> { texts.iter().map(|t| (*t).into()).collect() };
        let (head, rows) = (cells(&["metric", "a", "b"]), [cells(&["loss", "1", "2"])]);
        let html = turned("x", &head, &rows, true);
        let row = |name: &str, value: &str| {
            html.contains(&format!("<th scope=\"row\">{name}</th><td>{value}</td>"))
        };
        assert!(
            row("a", "1") && row("b", "2") && html.contains("class=\"x turned\""),
            "{html}"
        );
        assert_eq!(turned("x", &head, &rows, false), table("x", &head, &rows));
    }

    /// Nothing is fetched from elsewhere.
    #[test]
    fn a_page_needs_no_network() {
        let page = page("t", "", &[]);
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
