-- By the policy that chose: how many requests it routed, how many were judged, and what they earned.
select
    coalesce(substr(regexp_replace(r.policy_version, '^sha256:', ''), 1, 12), 'none') as policy,
    count(*) as requests,
    count(w.quality) as judged,
    avg(w.quality) as quality,
    avg(r.cost_usd) as usd_per_request,
    avg(r.propensity) as propensity
from requests as r
left join rewards as w on w.request_id = r.request_id and w.tenant is not distinct from r.tenant
group by 1
order by requests desc
limit 20
