select window_start, requests, requests_per_s, dispersion
from arrivals
order by window_start desc
limit 24
