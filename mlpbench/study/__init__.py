"""One model of a study: its trials, what each result was made from, its settings, and the choice among them."""
