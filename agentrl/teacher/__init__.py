"""What the teacher sees beyond the policy's prompt. No torch."""
