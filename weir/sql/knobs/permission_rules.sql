SELECT tenant, verdict, role, tool, operation, domain, confidence, confidence_low, exceptions, support AS evidence
FROM permission_rules
