"""What looks at runs: reports, explanations, costs, sweeps. The core never imports it."""
