"""Which units go together, who reads them, and what they may not do."""
