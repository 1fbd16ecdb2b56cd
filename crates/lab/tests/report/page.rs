//! A page, read as the HTML standard says.

use scraper::{Html, Selector};

/// What makes a browser ask for something.
const REFERENCES: [&str; 5] = ["http:", "https:", "src=", "@import", "url("];
/// Elements that are there to fetch something.
const FETCHING: &str = "img, iframe, object, embed, base, audio, video, form, use, image";
const POLICY: &str = "default-src 'none'";

fn select(page: &Html, what: &str) -> usize {
    page.select(&Selector::parse(what).expect("a selector")).count()
}

/// What is wrong with `page`, which is to have so many charts.
pub fn flaws(page: &str, charts: usize) -> Vec<String> {
    let read = Html::parse_document(page);
    let mut flaws: Vec<_> = read.errors.iter().map(|error| format!("not well-formed: {error}")).collect();
    let named = REFERENCES.iter().filter(|reference| page.contains(**reference));
    flaws.extend(named.map(|reference| format!("{reference} names something outside")));
    let fetching = Selector::parse(FETCHING).expect("a selector");
    flaws.extend(read.select(&fetching).map(|element| format!("{} fetches something", element.value().name())));
    let links = Selector::parse("[href]").expect("a selector");
    let hrefs = read.select(&links).filter_map(|element| element.value().attr("href"));
    flaws.extend(hrefs.filter(|href| !href.starts_with('#') && *href != "data:,").map(|href| format!("href to {href}")));
    let forbids = format!("meta[http-equiv=\"Content-Security-Policy\"][content^=\"{POLICY}\"]");
    if select(&read, &forbids) != 1 {
        flaws.push("no policy forbids to fetch".into());
    }
    let (scripts, drawn) = (select(&read, "script"), select(&read, "svg.plot"));
    if scripts != 1 {
        flaws.push(format!("{scripts} scripts, and one is ours"));
    }
    if drawn != charts {
        flaws.push(format!("{drawn} charts instead of {charts}"));
    }
    if select(&read, "h1") != 1 || select(&read, "header code") != 1 {
        flaws.push("no title or no command".into());
    }
    flaws
}

/// Everything that a reader sees as a text.
pub fn texts(page: &str) -> Vec<String> {
    let read = Html::parse_document(page);
    read.root_element().text().map(|text| text.trim().to_string()).filter(|text| !text.is_empty()).collect()
}
