SELECT class, model, domain, rate, rate_low, rate_high, observed AS evidence FROM failure_rates
