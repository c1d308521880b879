"""What an export folder holds beside its models."""
