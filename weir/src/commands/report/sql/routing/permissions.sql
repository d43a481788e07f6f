SELECT tenant, verdict, role, tool, operation, domain, support, callers, exceptions, confidence_low
FROM permission_rules
ORDER BY support DESC, tenant, verdict, role, tool, operation, domain
LIMIT 60
