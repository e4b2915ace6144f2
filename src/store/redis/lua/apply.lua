-- Writes one part of an accepted request. KEYS[FIXED + 1] is where it is staged. ARGV: 4 its name, 5 the part, 6 the
-- partition, 7 the reason of triggered jobs; then for each event of the part: its number in the request, the index of its
-- key, base, number of all its jobs, the index of the first of these, their number, its meta and its document (empty but in
-- the first part that has some of it), its type, its field among the public ids, the index of its dedupe key (0 for none);
-- for each job: connection, mapping, the index of the connection's log, whether it is triggered.
-- Answers how many lanes the ring holds, and when something happens by itself next.
local staging, name, partition, unanswered = KEYS[FIXED + 1], ARGV[4], ARGV[6], ARGV[7]
if call('HEXISTS', staging, 'left') == 0 or call('HDEL', staging, ARGV[5]) == 0 then return { S[S_RING], next_timer() } end
local at = COMMON + 4
local function take()
  at = at + 1
  return ARGV[at]
end

while at < #ARGV do
  local wanted = call('HEXISTS', staging, 'x' .. take()) == 0
  local key, base, all, first, count = tonumber(take()), take(), tonumber(take()), tonumber(take()), tonumber(take())
  local meta, document, kind, field, dedupe = take(), take(), take(), take(), tonumber(take())
  local fields = {}
  if wanted and document ~= '' then
    enter_event(KEYS[key + 1], KEYS[key + 2], base, base .. number(all, 3), field, kind)
    settle_claim(dedupe, name)
    fields = { 'm', number(all, 3) .. meta, 'd', document }
  end
  for index = first, first + count - 1 do
    local job = { connection = take(), mapping = take(), log = tonumber(take()), triggered = take() == '1' }
    if wanted then
      local l = lane(job.connection)
      local record
      if l then
        enter_job(base, index, partition, job)
        if l[IS_CLOSED] == 1 and not job.triggered then close(job.connection) end
        record = job.triggered
          and struct.pack(RECORD, job.connection, job.mapping, DEAD, 0, 0, 0, now) .. unanswered
          or struct.pack(RECORD, job.connection, job.mapping, QUEUED, 0, 0, 0, 0)
      else
        enter_member(KEYS[job.log], base .. number(index, 3))
        record = struct.pack(RECORD, job.connection, job.mapping, CANCELLED, 0, 0, 0, now) .. 'its connection was deleted'
      end
      fields[#fields + 1] = index
      fields[#fields + 1] = record
    end
  end
  if #fields > 0 then call('HSET', KEYS[key], unpack(fields)) end
end
write_entered()
if call('HINCRBY', staging, 'left', -1) <= 0 then
  call('UNLINK', staging)
  call('ZREM', ACCEPTED, name)
end
finish()
return { S[S_RING], next_timer() }
