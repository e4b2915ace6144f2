-- Mirrors what the records say of lanes. ARGV from 4 on, ten for each: connection, revision, tenant, concurrency, batch,
-- paused, closed, deleted, the time before which its jobs are not wanted (0 for all are), the pending effect that this resolves (empty for none). An older revision changes nothing.
local EACH = 10
for at = COMMON, #ARGV - EACH, EACH do
  local connection, revision, tenant = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local cap, batch = math.max(tonumber(ARGV[at + 4]), 1), math.max(tonumber(ARGV[at + 5]), 1)
  local paused, closed = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7])
  local l = lane(connection)
  if not l then
    l = { 0, tenant, cap, cap, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, '' }
    touched[connection] = l
    touched_order[#touched_order + 1] = connection
  end
  if revision > l[REV] then
    if l[IN_RING] == 0 then l[TENANT] = tenant end
    -- Whoever resumes a lane says that its endpoint works.
    local resumed = (l[IS_PAUSED] == 1 or l[IS_CLOSED] == 1) and paused == 0 and closed == 0
    l[REV], l[CAP], l[BATCH], l[IS_PAUSED], l[IS_CLOSED] = revision, cap, batch, paused, closed
    l[WIDTH] = resumed and cap or math.min(math.max(l[WIDTH], 1), cap)
    if resumed then l[FAILURES], l[SINCE] = 0, 0 end
    if closed == 1 and l[OPEN] > 0 then close(connection) end
    local unwanted = tonumber(ARGV[at + 9])
    if l[UNWANTED] ~= unwanted then l[UNWANTED], l[SEEN] = unwanted, '' end
    -- Even an empty one is looked at once: whoever looks takes the mark away.
    if unwanted > 0 and closed == 0 then close(connection) end
    if ARGV[at + 8] == '1' then call('ZADD', GONE, now, connection) end
  end
  if ARGV[at + 10] ~= '' and call('HGET', PENDING, connection) == ARGV[at + 10] then call('HDEL', PENDING, connection) end
end
finish()
return { S[S_RING], next_timer() }
