-- Leases jobs, going round. ARGV: 4 how many, 5 the deadline, 6 how many jobs one lane gives before the next has its turn,
-- 7 how many jobs batches may bring. A batch counts as one job. Answers: whether to call again at once, when
-- something happens by itself (0 for never), whether another process holds leases here, how often something was erased
-- here, and the leases (`GIVEN`).
local room, deadline, quantum, batched = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local STEP = 64
-- Where nothing is open nothing can happen.
if S[S_OPEN] <= 0 and S[S_RING] == 0 and S[S_LEASED] == 0 then return { 0, 0, 0, S[S_ERASED], '' } end
local again = false

-- Time passes: timers fire, leases end, dead owners lose theirs. By the server's own clock where processes are compared.
local server_now = server_time()

local due = call('ZRANGEBYSCORE', TIMERS, '-inf', now, 'LIMIT', 0, STEP)
for _, connection in ipairs(due) do
  local l = lane(connection)
  if l then
    l[TIMER] = 0
    call('ZREM', TIMERS, connection)
    wake(connection, l)
  else
    call('ZREM', TIMERS, connection)
  end
end
again = again or #due == STEP

local late = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, STEP)
for _, id in ipairs(late) do
  local held = held_by(id)
  if held then give_back(id, held, true) else call('ZREM', LEASES, id) end
end
again = again or #late == STEP

local others = false
local oldest = call('ZRANGE', OWNERS, 0, 1, 'WITHSCORES')
for index = 1, #oldest, 2 do
  local owner, beat = oldest[index], tonumber(oldest[index + 1])
  if owner ~= me then
    others = true
    if server_now - beat > SILENCE and server_now > S[S_GRACE] then
      local orphans = call('ZRANGEBYLEX', OWNED, '[' .. owner, '(' .. owner .. '\255\255', 'LIMIT', 0, STEP)
      for _, member in ipairs(orphans) do
        local id = member:sub(#owner + 1)
        local held = held_by(id)
        if held and held[2] == owner then
          give_back(id, held, true)
        elseif not is_over[id] then
          call('ZREM', OWNED, member)
        end
      end
      if #orphans < STEP then call('ZREM', OWNERS, owner) else again = true end
      others = call('ZCARD', OWNERS) > 1
    end
    break
  end
end
-- What came back goes round at once.
write_back()
for _, connection in ipairs(touched_order) do wake(connection, touched[connection]) end

local turns = 0
while given < room and jobs < room + batched and turns < 2 * STEP do
  turns = turns + 1
  local tenant = call('ZRANGE', TENANTS, '0', '0')[1]
  if not tenant then break end
  local lower, upper = '[' .. tenant .. '\0', '(' .. tenant .. '\1'
  local member = call('ZRANGEBYLEX', READY, lower, upper, 'LIMIT', '0', '1')[1]
  if member then
    call('ZREM', READY, member)
    S[S_RING] = S[S_RING] - 1
    local connection = member:sub(-16)
    local l = lane(connection)
    if l then
      l[IN_RING] = 0
      -- One that nobody waits behind need not stop for others.
      wake(connection, l, turn(connection, l, math.min(S[S_RING] > 0 and quantum or room, room - given), deadline))
    end
  end
  local more = S[S_RING] > 0 and call('ZRANGEBYLEX', READY, lower, upper, 'LIMIT', '0', '1')[1]
  if more then
    S[S_TURN] = S[S_TURN] + 1
    call('ZADD', TENANTS, S[S_TURN], tenant)
  else
    call('ZREM', TENANTS, tenant)
  end
end

write_leases(server_now)
-- Who calls knows already, and others ask again while this process holds leases.
finish(true)
again = again or S[S_RING] > 0
local next_time = next_timer()
local next_end = tonumber(call('ZRANGE', LEASES, '0', '0', 'WITHSCORES')[2])
if next_end and (next_time == 0 or next_end < next_time) then next_time = next_end end
return { again and 1 or 0, next_time, others and 1 or 0, S[S_ERASED], table.concat(answered) }
