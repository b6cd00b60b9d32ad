-- migrate:up
-- The attempt whose start an accepted reply travels with; NULL: it is handed to the living engine that asked.
ALTER TABLE interactions ADD COLUMN carried_by int;
